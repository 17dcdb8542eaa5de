package account_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
)

// fixed is a store of accounts and keys that are there from the start; what
// the tests here never call panics by the nil interface.
type fixed struct {
	account.Store
	accounts map[account.ID]account.Account
	keys     map[string]account.Key
	err      error
}

func (f fixed) Account(_ context.Context, id account.ID) (account.Account, error) {
	a, ok := f.accounts[id]
	if f.err == nil && !ok {
		return a, account.ErrNotFound
	}
	return a, f.err
}

func (f fixed) Key(_ context.Context, id string) (account.Key, error) {
	k, ok := f.keys[id]
	if f.err == nil && !ok {
		return k, account.ErrNotFound
	}
	return k, f.err
}

func TestNewSecret(t *testing.T) {
	seen := map[string]bool{}
	for range 2000 {
		secret := account.NewSecret()
		id, hash, err := account.SplitSecret(secret)
		if err != nil || len(secret) != 69 || len(id) != 22 || !strings.HasPrefix(secret, "SG."+id+".") {
			t.Fatalf("%s: id %s, %v", secret, id, err)
		}
		if hash != sha256.Sum256([]byte(secret)) {
			t.Error("the hash is not over the whole secret")
		}
		if id[0] == '-' {
			t.Fatalf("a command line would take %s for a flag", id)
		}
		if seen[secret] || seen[id] {
			t.Fatal("a secret came twice")
		}
		seen[secret], seen[id] = true, true
	}
}

func TestSplitSecretRefuses(t *testing.T) {
	id, tail := strings.Repeat("a", 22), strings.Repeat("b", 43)
	for _, s := range []string{
		"", "SG", "SG.", "SG..", "SG." + id, "SG." + id + ".", id + "." + tail, "sg." + id + "." + tail,
		"SG." + id + "." + tail + "x", "SG." + id + "." + tail[1:], "SG." + id[1:] + "." + tail, "SG." + id + "x." + tail,
		"SG." + id[1:] + "=." + tail, "SG." + id + "." + tail[1:] + "/", "SG." + id + "." + tail[1:] + "\x00",
		" SG." + id + "." + tail, "SG." + id + "." + tail + "\n", "SG." + id + "." + tail[1:] + ".",
	} {
		if _, _, err := account.SplitSecret(s); !errors.Is(err, account.ErrSecret) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, _, err := account.SplitSecret("SG." + id + "." + tail); err != nil {
		t.Error(err)
	}
}

func FuzzSplitSecret(f *testing.F) {
	f.Add(account.NewSecret())
	f.Add("SG.x.y")
	f.Add("SG....................................................................")
	f.Fuzz(func(t *testing.T, s string) {
		id, hash, err := account.SplitSecret(s)
		if err != nil {
			if id != "" || hash != [32]byte{} {
				t.Error("a refused secret gives an id or a hash")
			}
			return
		}
		if len(s) != 69 || s[3:25] != id || strings.ContainsAny(id, ". /+=\x00") {
			t.Errorf("%q gives %q", s, id)
		}
	})
}

func TestAuthenticate(t *testing.T) {
	secret, other := account.NewSecret(), account.NewSecret()
	id, hash, _ := account.SplitSecret(secret)
	otherID, _, _ := account.SplitSecret(other)
	key := account.Key{ID: id, Hash: hash, Owner: "2", Full: true}
	orphan := account.Key{ID: otherID, Hash: sha256.Sum256([]byte(other)), Owner: "9"}
	with := func(a account.Account) fixed {
		return fixed{
			accounts: map[account.ID]account.Account{"2": a},
			keys:     map[string]account.Key{id: key, otherID: orphan},
		}
	}
	enabled := with(account.Account{ID: "2", Username: "sub"})
	away := errors.New("the store is away")
	broken := enabled
	broken.err = away

	for name, c := range map[string]struct {
		store  fixed
		secret string
		want   error
	}{
		"good":                   {enabled, secret, nil},
		"malformed":              {enabled, "SG.nonsense", account.ErrDenied},
		"empty":                  {enabled, "", account.ErrDenied},
		"unknown":                {enabled, account.NewSecret(), account.ErrDenied},
		"right id, wrong secret": {enabled, secret[:26] + other[26:], account.ErrDenied},
		"owner is gone":          {enabled, other, account.ErrDenied},
		"owner is disabled":      {with(account.Account{ID: "2", Disabled: true}), secret, account.ErrDenied},
		"store is away":          {broken, secret, away},
		"malformed, store away":  {broken, "x", account.ErrDenied},
	} {
		t.Run(name, func(t *testing.T) {
			owner, got, err := account.Authenticate(t.Context(), c.store, c.secret)
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if err != nil && (owner != account.Account{} || got.ID != "") {
				t.Errorf("refused, and yet %+v, %+v", owner, got)
			}
			if err == nil && (owner.Username != "sub" || got.ID != id) {
				t.Errorf("opens %+v with %+v", owner, got)
			}
		})
	}
}

func TestSender(t *testing.T) {
	strict := policy.Settings{RequireTLS: true, MinVersion: policy.TLS13}
	enforced := strict
	enforced.EnforceOnSubusers = true
	own := policy.Settings{RequireValidCert: true}
	store := func(parent policy.Settings) fixed {
		return fixed{accounts: map[account.ID]account.Account{
			account.Parent: {ID: account.Parent, Kind: account.KindParent, Settings: parent},
			"2":            {ID: "2", Kind: account.KindSubuser, Settings: own},
			"3":            {ID: "3", Kind: account.KindCustomer, Settings: own},
		}}
	}
	for name, c := range map[string]struct {
		parent policy.Settings
		id     account.ID
		floor  bool
	}{
		"a subuser stands alone":            {strict, "2", false},
		"a subuser under its parent":        {enforced, "2", true},
		"a customer under its parent":       {enforced, "3", true},
		"the parent is not below itself":    {enforced, account.Parent, false},
		"nothing enforced, nothing floored": {policy.Settings{}, "3", false},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := account.Sender(t.Context(), store(c.parent), c.id)
			if err != nil {
				t.Fatal(err)
			}
			want := own
			if c.id == account.Parent {
				want = c.parent
			}
			if s.Account != want || (s.Parent != nil) != c.floor || c.floor && *s.Parent != c.parent || s.Override != nil {
				t.Errorf("%+v", s)
			}
		})
	}
	if _, err := account.Sender(t.Context(), store(strict), "9"); !errors.Is(err, account.ErrNotFound) {
		t.Errorf("an unknown account: %v", err)
	}
	// Accepted mail of a disabled account is delivered as it was promised.
	off := store(enforced)
	disabled := off.accounts["2"]
	disabled.Disabled = true
	off.accounts["2"] = disabled
	if s, err := account.Sender(t.Context(), off, "2"); err != nil || s.Account != own || s.Parent == nil {
		t.Errorf("a disabled account: %+v, %v", s, err)
	}
	lone := store(strict)
	delete(lone.accounts, account.Parent)
	if _, err := account.Sender(t.Context(), lone, "2"); err == nil || errors.Is(err, account.ErrNotFound) {
		t.Errorf("a subuser whose parent cannot be read must not pass without its floor, nor count as deleted: %v", err)
	}
}

func TestKeyScopes(t *testing.T) {
	all := account.AllScopes()
	if !slices.IsSorted(all) || len(slices.Compact(slices.Clone(all))) != len(all) {
		t.Errorf("not sorted, or one is there twice: %q", all)
	}
	full, none := account.Key{Full: true}, account.Key{}
	mail := account.Key{Scopes: []account.Scope{account.MailSend}}
	for _, s := range all {
		if !s.Known() || !full.Allows(s) || none.Allows(s) || mail.Allows(s) != (s == account.MailSend) {
			t.Errorf("%s: known %v, full %v, none %v, mail %v", s, s.Known(), full.Allows(s), none.Allows(s), mail.Allows(s))
		}
	}
	for _, s := range []account.Scope{"", "mail", "mail.send ", "MAIL.SEND", "mail.*"} {
		if s.Known() || mail.Allows(s) {
			t.Errorf("%q is no scope", s)
		}
	}
}

// SendGrid's own scopes may be held, and open nothing of ours.
func TestForeignScopes(t *testing.T) {
	for _, s := range []account.Scope{
		"stats.read", "alerts.create", "templates.read", "suppression.bounces.delete", "user.webhooks.event.test.delete",
		"whitelabel.update", "marketing_campaigns.read", "email_testing.write", "signup.trigger_confirmation",
		"sender_verification_eligible", "sender_verification_exempt", "2fa_required", "2fa_exempt",
	} {
		if !s.Grantable() || s.Known() {
			t.Errorf("%s: grantable %v, known %v", s, s.Grantable(), s.Known())
		}
		k := account.Key{Scopes: []account.Scope{s}}
		for _, ours := range account.AllScopes() {
			if k.Allows(ours) {
				t.Errorf("%s opens %s", s, ours)
			}
		}
	}
	for _, s := range account.AllScopes() {
		if !s.Grantable() || s.Condition() {
			t.Errorf("%s: grantable %v, condition %v", s, s.Grantable(), s.Condition())
		}
	}
	for _, s := range []account.Scope{"", "stats", "stats.create", "no.such", "2fa", "alerts.*", "*", "STATS.READ", "stats.read ", "email_testing.update"} {
		if s.Grantable() {
			t.Errorf("%q can be held", s)
		}
	}
}

func TestOverrideInForce(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		expires time.Time
		want    bool
	}{
		"never expires": {time.Time{}, true},
		"later":         {now.Add(1), true},
		"now":           {now, false},
		"past":          {now.Add(-1), false},
	} {
		if got := (account.Override{Expires: c.expires}).InForce(now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
