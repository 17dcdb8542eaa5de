package api

import (
	"errors"
	"net/http"

	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
)

// The forms in which a key is shown; the order of fields is SendGrid's.
type (
	keyName struct {
		ID   string `json:"api_key_id"`
		Name string `json:"name"`
	}
	keyEntry struct {
		Name string `json:"name"`
		ID   string `json:"api_key_id"`
	}
	keyView struct {
		ID     string          `json:"api_key_id"`
		Name   string          `json:"name"`
		Scopes []account.Scope `json:"scopes"`
	}
	newKeyView struct {
		Secret string `json:"api_key"` // shown this once
		keyView
	}
)

func viewKey(k account.Key) keyView { return keyView{k.ID, k.Name, scopesOf(k)} }

// badScopes holds both phrases that clients look for.
func badScopes() *rest.Fault {
	return rest.InvalidField("scopes", "one or more of given scopes are invalid: invalid or unassignable scopes")
}

func (s *server) listKeys(r *rest.Request) (any, error) {
	limit, offset, err := r.Page(maxKeys, 1, rest.NoLimit)
	if err != nil {
		return nil, err
	}
	keys, err := s.Accounts.Keys(r.Context(), r.On.ID)
	if err != nil {
		return nil, err
	}
	result := make([]keyEntry, 0, len(keys))
	for _, k := range rest.Cut(keys, limit, offset) {
		result = append(result, keyEntry{k.Name, k.ID})
	}
	return map[string]any{"result": result}, nil
}

func (s *server) createKey(r *rest.Request, o *rest.Object) (any, error) {
	secret, k, err := s.addKey(r, o)
	switch {
	case errors.Is(err, account.ErrTooMany):
		const text = "Cannot create more than 100 API Keys"
		return nil, rest.Worded(http.StatusForbidden, text, rest.AboutField("", text)).At(boundKeys)
	case err != nil:
		return nil, err
	}
	return newKeyView{secret, viewKey(k)}, nil
}

// addKey reads and stores a new key of the account.
func (s *server) addKey(r *rest.Request, o *rest.Object) (secret string, k account.Key, err error) {
	if k, err = readKey(o, r.Key, account.Key{Owner: r.On.ID, Created: r.Now()}); err != nil {
		return "", k, err
	}
	secret = account.NewSecret()
	if k.ID, k.Hash, err = account.SplitSecret(secret); err != nil {
		return "", k, err
	}
	if err := s.Accounts.PutKey(r.Context(), k); err != nil {
		return "", k, err
	}
	r.Audit("api key created", k.ID, nil, viewKey(k))
	return secret, k, nil
}

// readKey reads name and scopes of a request over what the key has. A new key
// without scopes has full access, which only a caller with full access can give.
func readKey(o *rest.Object, caller, k account.Key) (account.Key, error) {
	isNew := k.ID == ""
	readName(o, &k, isNew)
	var names []string
	o.Texts("scopes", &names)
	if err := o.Err(); err != nil {
		return k, err
	}
	if !o.Has("scopes") {
		if isNew && !caller.Full {
			return k, badScopes()
		}
		k.Full = k.Full || isNew
		return k, nil
	}
	scopes, ok := grantable(names, caller, k)
	if !ok {
		return k, badScopes()
	}
	k.Full, k.Scopes = false, scopes
	return k, nil
}

func readName(o *rest.Object, k *account.Key, required bool) {
	const most = 255
	if required && !o.Has("name") {
		o.Require("name")
		return
	}
	o.Text("name", most, &k.Name)
	if o.Err() == nil && k.Name == "" {
		o.Wrong("name", "name must not be empty")
	}
}

// findKey finds the key of the path, if it is the account's.
func (s *server) findKey(r *rest.Request) (account.Key, error) {
	k, err := s.Accounts.Key(r.Context(), r.PathValue("id"))
	if err == nil && k.Owner != r.On.ID {
		err = account.ErrNotFound
	}
	return k, err
}

func (s *server) getKey(r *rest.Request) (any, error) {
	k, err := s.findKey(r)
	if err != nil {
		return nil, err
	}
	return viewKey(k), nil
}

func (s *server) renameKey(r *rest.Request, o *rest.Object) (any, error) {
	var named account.Key
	readName(o, &named, true)
	if err := o.Err(); err != nil {
		return nil, err
	}
	k, err := s.changeKey(r, func(k account.Key) (account.Key, error) {
		k.Name = named.Name
		return k, nil
	})
	if err != nil {
		return nil, err
	}
	return keyName{k.ID, k.Name}, nil
}

func (s *server) replaceKey(r *rest.Request, o *rest.Object) (any, error) {
	k, err := s.changeKey(r, func(k account.Key) (account.Key, error) { return readKey(o, r.Key, k) })
	if err != nil {
		return nil, err
	}
	return viewKey(k), nil
}

// changeKey changes the key of the path. Whether it exists is told last.
func (s *server) changeKey(r *rest.Request, change func(account.Key) (account.Key, error)) (account.Key, error) {
	id := r.PathValue("id")
	var before account.Key
	after, err := s.Accounts.UpdateKey(r.Context(), id, func(k *account.Key) (err error) {
		if k.Owner != r.On.ID {
			return account.ErrNotFound
		}
		before = *k
		*k, err = change(before)
		return err
	})
	if errors.Is(err, account.ErrNotFound) {
		if _, bad := change(account.Key{ID: id}); bad != nil {
			err = bad
		}
	}
	if err != nil {
		return account.Key{}, err
	}
	r.Audit("api key changed", id, viewKey(before), viewKey(after))
	return after, nil
}

func (s *server) deleteKey(r *rest.Request) (any, error) {
	k, err := s.findKey(r)
	if err != nil {
		return nil, err
	}
	return nil, s.endKey(r, k)
}

func (s *server) endKey(r *rest.Request, k account.Key) error {
	if err := s.Accounts.DeleteKey(r.Context(), k.ID); err != nil {
		return err
	}
	r.Audit("api key deleted", k.ID, viewKey(k), nil)
	return nil
}
