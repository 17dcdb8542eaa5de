package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"tlsrelay/policy/account"
)

// firstKey is the full-access key of a fresh store. Secret is empty when
// there was a key already, or when the operator brought the key.
type firstKey struct{ Secret string }

// bootstrap makes the parent account and, when the store holds no key at all,
// its full-access key: the one in TLSRELAY_BOOTSTRAP_KEY(_FILE), else a fresh
// one to be shown once.
func bootstrap(ctx context.Context, st account.Store, getenv func(string) string) (firstKey, error) {
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
	var show firstKey
	if secret == "" {
		secret = account.NewSecret()
		show.Secret = secret
	}
	id, hash, err := account.SplitSecret(secret)
	if err != nil {
		return firstKey{}, usage("TLSRELAY_BOOTSTRAP_KEY: %v", err)
	}
	return show, st.PutKey(ctx, account.Key{
		ID: id, Hash: hash, Name: "bootstrap", Owner: account.Parent, Full: true, Created: time.Now(),
	})
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

// welcome is what the first start prints: the key, and the lines to copy for
// a first message and a first policy change.
func (k firstKey) welcome(a *app) string {
	api := "http://" + a.api.addr()
	if a.config.API.CertFile != "" {
		api = "https://" + a.api.addr()
	}
	return fmt.Sprintf(`
This is a fresh relay. Its full-access API key, shown only this once:

    %[1]s

Send a first message (submission takes user name "apikey" and the key):

    printf 'From: you@example.org\r\nSubject: first\r\n\r\nHello over TLS.\r\n' |
    curl --url %[2]s --insecure --user 'apikey:%[1]s' \
      --mail-from you@example.org --mail-rcpt someone@example.com --upload-file -

Make a first policy change (deliver over TLS 1.2 or better, or not at all):

    curl -X PATCH %[3]s/v3/user/settings/enforced_tls \
      -H 'Authorization: Bearer %[1]s' -H 'Content-Type: application/json' \
      -d '{"require_tls": true, "version": 1.2}'
`, k.Secret, submissionURL(a), api)
}

// submissionURL is where mail is taken, as curl wants it: over STARTTLS, or
// where nothing listens for that, over TLS from the start.
func submissionURL(a *app) string {
	if addrs := a.submission.Addrs(); len(addrs) > 0 {
		return "smtp://" + addrs[0].String() + " --ssl-reqd"
	}
	return "smtps://" + a.submission.AddrsTLS()[0].String()
}
