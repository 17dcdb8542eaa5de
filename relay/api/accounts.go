package api

import (
	"strconv"
	"strings"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
)

// Account is an account as the operator sees it.
type Account struct {
	ID       account.ID   `json:"id"`
	Kind     account.Kind `json:"kind"`
	Username string       `json:"username"`
	Email    string       `json:"email,omitempty"`
	Disabled bool         `json:"disabled"`
	Settings Settings     `json:"settings"`
	// MaxRecipientsPerHour is 0 where there is no limit.
	MaxRecipientsPerHour int       `json:"max_recipients_per_hour"`
	Created              time.Time `json:"created"`
}

// Settings are all settings of an account, by the names that the public API has for
// them.
type Settings struct {
	TLSSettings
	RelaySettings
}

// Key is an API key as the operator sees it. Secret is there once, in the
// answer to its creation.
type Key struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Full    bool            `json:"full_access"`
	Scopes  []account.Scope `json:"scopes,omitempty"`
	Created time.Time       `json:"created"`
	Secret  string          `json:"api_key,omitempty"`
}

func viewAccount(a account.Account) Account {
	return Account{
		ID: a.ID, Kind: a.Kind, Username: a.Username, Email: a.Email, Disabled: a.Disabled,
		Settings:             Settings{viewTLS(a.Settings), viewRelaySettings(a.Settings)},
		MaxRecipientsPerHour: a.MaxRecipientsPerHour, Created: a.Created,
	}
}

func viewAccountKey(k account.Key, secret string) Key {
	return Key{ID: k.ID, Name: k.Name, Full: k.Full, Scopes: k.Scopes, Created: k.Created, Secret: secret}
}

func (s *server) listAccounts(r *rest.Request) (any, error) {
	all, err := s.Accounts.Accounts(r.Context())
	views := make([]Account, len(all))
	for i, a := range all {
		views[i] = viewAccount(a)
	}
	return views, err
}

func (s *server) getAccount(r *rest.Request) (any, error) { return viewAccount(r.On), nil }

// createAccount makes a subuser (username) or a customer account (customer).
func (s *server) createAccount(r *rest.Request, o *rest.Object) (any, error) {
	a, field := account.Account{Kind: account.KindSubuser}, "username"
	if o.Has("customer") {
		a.Kind, field = account.KindCustomer, "customer"
	}
	readUsername(o, field, &a)
	if o.Err() != nil || o.Has("username") && o.Has("customer") {
		return nil, rest.InvalidField(field, "give one name, of at most 64 characters: letters, digits and ._-+@ in a username, "+
			"ASCII without spaces and slashes in the id of a customer")
	}
	readEmail(o, &a)
	if err := o.Err(); err != nil {
		return nil, err
	}
	a, err := s.addAccount(r, a)
	if err != nil {
		return nil, err
	}
	return viewAccount(a), nil
}

// patchAccount changes what is given.
func (s *server) patchAccount(r *rest.Request, o *rest.Object) (any, error) {
	change, err := parseTLS(o, o.Unquoted("version")) // the command line gives it as text
	if err != nil {
		return nil, err
	}
	read := func(a *account.Account) error {
		o.Bool("disabled", &a.Disabled)
		o.Count("max_recipients_per_hour", &a.MaxRecipientsPerHour)
		o.Bool("requiretls_relaxed", &a.Settings.RelaxedRequireTLS)
		if a.Disabled && a.Kind == account.KindParent {
			o.Wrong("disabled", "the parent account cannot be disabled")
		}
		change.apply(&a.Settings)
		return readSettings(o, &a.Settings, a.Kind)
	}
	a, err := s.changeAccount(r, r.On.ID, read)
	if err != nil {
		return nil, err
	}
	return viewAccount(a), nil
}

func (s *server) deleteAccount(r *rest.Request) (any, error) {
	if r.On.Kind == account.KindParent {
		return nil, rest.InvalidField("", "the parent account cannot be deleted")
	}
	return nil, s.endAccount(r, r.On)
}

func (s *server) listAccountKeys(r *rest.Request) (any, error) {
	keys, err := s.Accounts.Keys(r.Context(), r.On.ID)
	views := make([]Key, len(keys))
	for i, k := range keys {
		views[i] = viewAccountKey(k, "")
	}
	return views, err
}

func (s *server) createAccountKey(r *rest.Request, o *rest.Object) (any, error) {
	var scopes []string
	o.Texts("scopes", &scopes)
	for _, scope := range scopes {
		if !account.Scope(scope).Grantable() {
			o.Wrong("scopes", "no such scope: "+strconv.Quote(scope))
		}
	}
	if err := o.Err(); err != nil {
		return nil, err
	}
	secret, k, err := s.addKey(r, o)
	if err != nil {
		return nil, err
	}
	return viewAccountKey(k, secret), nil
}

func (s *server) revokeKey(r *rest.Request) (any, error) {
	k, err := s.Accounts.Key(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return nil, s.endKey(r, k)
}

func (s *server) listEndpoints(*rest.Request) (any, error) { return s.Endpoints(), nil }

// addAccount stores a new account.
func (s *server) addAccount(r *rest.Request, a account.Account) (account.Account, error) {
	a.Created = r.Now()
	a, err := s.Accounts.CreateAccount(r.Context(), a)
	if err == nil {
		r.Audit(string(a.Kind)+" created", a.Username, nil, viewAccount(a))
	}
	return a, err
}

// changeAccount changes an account.
func (s *server) changeAccount(r *rest.Request, id account.ID, change func(*account.Account) error) (account.Account, error) {
	var before account.Account
	a, err := s.Accounts.UpdateAccount(r.Context(), id, func(a *account.Account) error {
		before = *a
		return change(a)
	})
	if err == nil {
		r.Audit(string(a.Kind)+" changed", a.Username, viewAccount(before), viewAccount(a))
	}
	return a, err
}

// endAccount deletes an account with its keys and webhooks.
func (s *server) endAccount(r *rest.Request, a account.Account) error {
	if err := s.Accounts.DeleteAccount(r.Context(), a.ID); err != nil {
		return err
	}
	r.Audit(string(a.Kind)+" deleted", a.Username, viewAccount(a), nil)
	return nil
}

// readUsername reads the name of a new account.
func readUsername(o *rest.Object, field string, a *account.Account) {
	o.Text(field, 64, &a.Username)
	if o.Err() == nil && !validName(a.Kind, a.Username) {
		o.Wrong(field, "invalid "+field)
	}
}

func readEmail(o *rest.Object, a *account.Account) {
	o.Text("email", 254, &a.Email)
	if a.Email != "" && !strings.Contains(a.Email, "@") {
		o.Wrong("email", "invalid email")
	}
}

// validName keeps to characters that need no care in paths and headers: those of
// usernames, or any that an operator's own ids of customers may have. Without a space,
// no name can read as "account-id ID".
func validName(kind account.Kind, s string) bool {
	if kind == account.KindCustomer {
		return s != "" && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '/' })
	}
	named := false
	for _, c := range s {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			named = true
		case !strings.ContainsRune("._-+@", c):
			return false
		}
	}
	return named && !strings.EqualFold(s, "account-id")
}
