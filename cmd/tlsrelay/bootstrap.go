package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tlsrelay/policy/account"
)

// firstKey is the full-access key of a fresh store, and the file that has it. Both are
// empty when the store had a key, or when the operator gave the key.
type firstKey struct{ Secret, File string }

// keyFile is the file in the data directory that gets the first key.
const keyFile = "first-api-key"

// bootstrap makes the parent account and, when the store has no key at all, a full-access
// key of it. The key is the one in TLSRELAY_BOOTSTRAP_KEY(_FILE), or else a new one, which
// bootstrap writes to a file in dir.
func bootstrap(ctx context.Context, st account.Store, dir string, getenv func(string) string) (firstKey, error) {
	if err := ensureParent(ctx, st); err != nil {
		return firstKey{}, err
	}
	if any, err := anyKey(ctx, st); any || err != nil {
		return firstKey{}, err
	}
	secret, err := givenKey(getenv)
	if err != nil {
		return firstKey{}, err
	}
	var made firstKey
	if secret == "" {
		secret = account.NewSecret()
		// First to the file: a key that is only in the store is of no use to anybody.
		made = firstKey{secret, filepath.Join(dir, keyFile)}
		if err := writeSecret(made.File, secret); err != nil {
			return firstKey{}, fmt.Errorf("the first API key: %w", err)
		}
	}
	id, hash, err := account.SplitSecret(secret)
	if err != nil {
		return firstKey{}, usage("TLSRELAY_BOOTSTRAP_KEY: %v", err)
	}
	return made, st.PutKey(ctx, account.Key{
		ID: id, Hash: hash, Name: "bootstrap", Owner: account.Parent, Full: true, Created: time.Now(),
	})
}

// writeSecret writes one line to a file that only its owner may read, and replaces an
// older file.
func writeSecret(file, secret string) error {
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(secret + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

func ensureParent(ctx context.Context, st account.Store) error {
	_, err := st.Account(ctx, account.Parent)
	if !errors.Is(err, account.ErrNotFound) {
		return err
	}
	a, err := st.CreateAccount(ctx, account.Account{Kind: account.KindParent, Username: "parent", Created: time.Now()})
	if err == nil && a.ID != account.Parent {
		err = fmt.Errorf("the store gave the parent account the id %s", a.ID)
	}
	return err
}

func anyKey(ctx context.Context, st account.Store) (bool, error) {
	all, err := st.Accounts(ctx)
	if err != nil {
		return false, err
	}
	for _, a := range all {
		keys, err := st.Keys(ctx, a.ID)
		if err != nil || len(keys) > 0 {
			return len(keys) > 0, err
		}
	}
	return false, nil
}

func givenKey(getenv func(string) string) (string, error) {
	if file := getenv("TLSRELAY_BOOTSTRAP_KEY_FILE"); file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return "", usage("TLSRELAY_BOOTSTRAP_KEY_FILE: cannot be read")
		}
		return strings.TrimSpace(string(text)), nil
	}
	return getenv("TLSRELAY_BOOTSTRAP_KEY"), nil
}

// welcome is what the first start prints: where the key is, and lines to copy for a first
// message and a first policy change. It has the key itself only for a terminal, because
// other output is kept, in a journal for instance.
func (k firstKey) welcome(a *app, terminal bool) string {
	api := "http://" + a.api.addr()
	if a.config.API.CertFile != "" {
		api = "https://" + a.api.addr()
	}
	shown := ""
	if terminal {
		shown = ", and shown here only this once:\n\n    " + k.Secret
	}
	return fmt.Sprintf(`
This is a fresh relay. Its full-access API key is in %[1]s%[2]s

Send a first message (submission takes user name "apikey" and the key):

    KEY=$(cat %[3]s)
    printf 'From: you@example.org\r\nSubject: first\r\n\r\nHello over TLS.\r\n' |
    curl --url %[4]s --insecure --user "apikey:$KEY" \
      --mail-from you@example.org --mail-rcpt someone@example.com --upload-file -

Make a first policy change (deliver over TLS 1.2 or better, or not at all):

    curl -X PATCH %[5]s/v3/user/settings/enforced_tls \
      -H "Authorization: Bearer $KEY" -H 'Content-Type: application/json' \
      -d '{"require_tls": true, "version": 1.2}'
`, k.File, shown, quoted(k.File), submissionURL(a), api)
}

// quoted quotes a word for the shell.
func quoted(word string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-", r)
	}
	if strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) || strings.HasPrefix(word, "-") {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

// submissionURL is where mail is submitted, as arguments of curl: with STARTTLS, or with
// implicit TLS if no listener offers STARTTLS.
func submissionURL(a *app) string {
	if addrs := a.submission.Addrs(); len(addrs) > 0 {
		return "smtp://" + addrs[0].String() + " --ssl-reqd"
	}
	return "smtps://" + a.submission.AddrsTLS()[0].String()
}
