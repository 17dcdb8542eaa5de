package admin

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
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

// Settings are an account's settings by the names and types that the public
// API has for them, all of them always there.
type Settings struct {
	RequireTLS        bool               `json:"require_tls"`
	RequireValidCert  bool               `json:"require_valid_cert"`
	Version           json.Number        `json:"version"`
	OnViolation       policy.OnViolation `json:"on_violation"`
	ForwardSecrecy    bool               `json:"require_forward_secrecy"`
	AuthenticMX       bool               `json:"mx_auth_required"`
	RequireTLSOption  string             `json:"requiretls"` // strict or relaxed
	EnforceOnSubusers bool               `json:"enforce_on_subusers"`
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

// NewAccount asks for a subuser (Username) or a customer account (Customer).
type NewAccount struct {
	Username string `json:"username,omitempty"`
	Customer string `json:"customer,omitempty"`
	Email    string `json:"email,omitempty"`
}

// AccountChange changes what is set in it; nil leaves a thing as it is.
type AccountChange struct {
	Disabled          *bool               `json:"disabled,omitempty"`
	RequireTLS        *bool               `json:"require_tls,omitempty"`
	RequireValidCert  *bool               `json:"require_valid_cert,omitempty"`
	Version           *policy.Version     `json:"version,omitempty"`
	OnViolation       *policy.OnViolation `json:"on_violation,omitempty"`
	ForwardSecrecy    *bool               `json:"require_forward_secrecy,omitempty"`
	AuthenticMX       *bool               `json:"mx_auth_required,omitempty"`
	RequireTLSRelaxed *bool               `json:"requiretls_relaxed,omitempty"`
	EnforceOnSubusers *bool               `json:"enforce_on_subusers,omitempty"`

	MaxRecipientsPerHour *int `json:"max_recipients_per_hour,omitempty"`
}

func viewAccount(a account.Account) Account {
	return Account{
		ID: a.ID, Kind: a.Kind, Username: a.Username, Email: a.Email, Disabled: a.Disabled,
		Settings: viewSettings(a.Settings), MaxRecipientsPerHour: a.MaxRecipientsPerHour, Created: a.Created,
	}
}

func viewSettings(s policy.Settings) Settings {
	v := Settings{
		RequireTLS: s.RequireTLS, RequireValidCert: s.RequireValidCert, Version: json.Number(s.Floor().String()),
		OnViolation: cmp.Or(s.OnViolation, policy.Drop), ForwardSecrecy: s.ForwardSecrecy, AuthenticMX: s.AuthenticMX,
		RequireTLSOption: "strict", EnforceOnSubusers: s.EnforceOnSubusers,
	}
	if s.RelaxedRequireTLS {
		v.RequireTLSOption = "relaxed"
	}
	return v
}

func viewKey(k account.Key) Key {
	return Key{ID: k.ID, Name: k.Name, Full: k.Full, Scopes: k.Scopes, Created: k.Created}
}

// find reads the {account} of a path: "parent", a username, or
// "account-id ID" as in on-behalf-of.
func (s *server) find(r *http.Request) (account.Account, error) {
	return FindAccount(r, s.Accounts, r.PathValue("account"))
}

// FindAccount finds an account by the name an operator gives it: "" or
// "parent", a username, or "account-id ID".
func FindAccount(r *http.Request, st account.Store, name string) (account.Account, error) {
	ctx := r.Context()
	if name == "" || name == "parent" {
		return st.Account(ctx, account.Parent)
	}
	if id, ok := strings.CutPrefix(name, "account-id "); ok {
		return st.AccountNamed(ctx, account.KindCustomer, strings.TrimSpace(id))
	}
	a, err := st.AccountNamed(ctx, account.KindSubuser, name)
	if err != nil {
		if parent, perr := st.Account(ctx, account.Parent); perr == nil && parent.Username == name {
			return parent, nil
		}
	}
	return a, err
}

func (s *server) listAccounts(r *http.Request) (any, error) {
	all, err := s.Accounts.Accounts(r.Context())
	views := make([]Account, len(all))
	for i, a := range all {
		views[i] = viewAccount(a)
	}
	return views, err
}

func (s *server) showAccount(r *http.Request) (any, error) {
	a, err := s.find(r)
	return viewAccount(a), err
}

func (s *server) createAccount(r *http.Request) (any, error) {
	var in NewAccount
	if err := read(r, &in); err != nil {
		return nil, err
	}
	a := account.Account{Kind: account.KindSubuser, Username: in.Username, Email: in.Email, Created: time.Now()}
	if in.Customer != "" {
		a.Kind, a.Username = account.KindCustomer, in.Customer
	}
	// A name travels in the header on-behalf-of and in paths.
	unfit := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '/' }
	if (in.Username == "") == (in.Customer == "") || strings.ContainsFunc(a.Username, unfit) || len(a.Username) > 64 {
		return nil, badRequest("give one name, of at most 64 characters of ASCII, without spaces or slashes")
	}
	a, err := s.Accounts.CreateAccount(r.Context(), a)
	if err != nil {
		return nil, err
	}
	s.audit("account created", a.ID, zap.String("kind", string(a.Kind)), zap.String("username", a.Username))
	return viewAccount(a), nil
}

func (s *server) changeAccount(r *http.Request) (any, error) {
	var in AccountChange
	if err := read(r, &in); err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	a, err := s.find(r)
	if err != nil {
		return nil, err
	}
	if in.Disabled != nil && a.Kind == account.KindParent {
		return nil, badRequest("the parent account cannot be disabled")
	}
	if e := in.EnforceOnSubusers; e != nil && *e && a.Kind != account.KindParent {
		return nil, badRequest("enforce_on_subusers is for the parent account")
	}
	before := a
	a, err = s.Accounts.UpdateAccount(r.Context(), a.ID, func(a *account.Account) error {
		before = *a
		in.apply(a)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.audit("account changed", a.ID,
		zap.Any("before", before.Settings), zap.Any("after", a.Settings),
		zap.Bool("disabled_before", before.Disabled), zap.Bool("disabled", a.Disabled),
		zap.Int("max_recipients_per_hour_before", before.MaxRecipientsPerHour),
		zap.Int("max_recipients_per_hour", a.MaxRecipientsPerHour))
	return viewAccount(a), nil
}

func (c AccountChange) check() error {
	if v := c.Version; v != nil && (*v < policy.TLS11 || *v > policy.TLS13) {
		return badRequest("version must be one of 1.1, 1.2, 1.3")
	}
	if o := c.OnViolation; o != nil && *o != policy.Drop && *o != policy.Defer {
		return badRequest("on_violation must be drop or defer")
	}
	if n := c.MaxRecipientsPerHour; n != nil && *n < 0 {
		return badRequest("max_recipients_per_hour must not be negative")
	}
	return nil
}

func (c AccountChange) apply(a *account.Account) {
	set(&a.Disabled, c.Disabled)
	set(&a.Settings.RequireTLS, c.RequireTLS)
	set(&a.Settings.RequireValidCert, c.RequireValidCert)
	set(&a.Settings.MinVersion, c.Version)
	set(&a.Settings.OnViolation, c.OnViolation)
	set(&a.Settings.ForwardSecrecy, c.ForwardSecrecy)
	set(&a.Settings.AuthenticMX, c.AuthenticMX)
	set(&a.Settings.RelaxedRequireTLS, c.RequireTLSRelaxed)
	set(&a.Settings.EnforceOnSubusers, c.EnforceOnSubusers)
	set(&a.MaxRecipientsPerHour, c.MaxRecipientsPerHour)
}

func set[T any](into *T, v *T) {
	if v != nil {
		*into = *v
	}
}

func (s *server) deleteAccount(r *http.Request) (any, error) {
	a, err := s.find(r)
	if err != nil {
		return nil, err
	}
	if a.Kind == account.KindParent {
		return nil, badRequest("the parent account cannot be deleted")
	}
	if err := s.Accounts.DeleteAccount(r.Context(), a.ID); err != nil {
		return nil, err
	}
	s.audit("account deleted", a.ID, zap.String("username", a.Username))
	return nil, nil
}

func (s *server) listKeys(r *http.Request) (any, error) {
	a, err := s.find(r)
	if err != nil {
		return nil, err
	}
	keys, err := s.Accounts.Keys(r.Context(), a.ID)
	views := make([]Key, len(keys))
	for i, k := range keys {
		views[i] = viewKey(k)
	}
	return views, err
}

// NewKey asks for an API key; no Scopes means full access.
type NewKey struct {
	Name   string          `json:"name"`
	Scopes []account.Scope `json:"scopes,omitempty"`
}

func (s *server) createKey(r *http.Request) (any, error) {
	var in NewKey
	if err := read(r, &in); err != nil {
		return nil, err
	}
	for _, scope := range in.Scopes {
		if !scope.Grantable() {
			return nil, badRequest("no such scope: " + strconv.Quote(string(scope)))
		}
	}
	if in.Name == "" {
		return nil, badRequest("a key needs a name")
	}
	a, err := s.find(r)
	if err != nil {
		return nil, err
	}
	secret := account.NewSecret()
	id, hash, err := account.SplitSecret(secret)
	if err != nil {
		return nil, err
	}
	k := account.Key{
		ID: id, Hash: hash, Name: in.Name, Owner: a.ID,
		Full: len(in.Scopes) == 0, Scopes: in.Scopes, Created: time.Now(),
	}
	if err := s.Accounts.PutKey(r.Context(), k); err != nil {
		return nil, err
	}
	s.audit("key created", a.ID, zap.String("key", id), zap.String("name", in.Name))
	view := viewKey(k)
	view.Secret = secret
	return view, nil
}

func (s *server) revokeKey(r *http.Request) (any, error) {
	id := r.PathValue("key")
	k, err := s.Accounts.Key(r.Context(), id)
	if err != nil {
		return nil, err
	}
	if err := s.Accounts.DeleteKey(r.Context(), id); err != nil {
		return nil, err
	}
	s.audit("key revoked", k.Owner, zap.String("key", id), zap.String("name", k.Name))
	return nil, nil
}

// audit writes the line that says who changed what. Everybody who reaches
// this listener is the operator.
func (s *server) audit(what string, of account.ID, more ...zap.Field) {
	s.Log.Info("audit", append([]zap.Field{
		zap.String("change", what), zap.String("by", "operator"), zap.String("account", string(of)),
	}, more...)...)
}
