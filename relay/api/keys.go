package api

import (
	"errors"
	"net/http"

	"tlsrelay/policy/account"
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

// badScopes holds both phrases that clients look for (contract §3.1).
func badScopes() *fault {
	return invalidField("scopes", "one or more of given scopes are invalid: invalid or unassignable scopes")
}

func (s *server) listKeys(r *request) (any, error) {
	limit, offset, err := r.page(maxKeys, 1<<31-1)
	if err != nil {
		return nil, err
	}
	keys, err := s.Accounts.Keys(r.Context(), r.on.ID)
	if err != nil {
		return nil, err
	}
	result := make([]keyEntry, 0, len(keys))
	for _, k := range cut(keys, limit, offset) {
		result = append(result, keyEntry{k.Name, k.ID})
	}
	return map[string]any{"result": result}, nil
}

func (s *server) createKey(r *request) (any, error) {
	o, err := r.object(largeBody)
	if err != nil {
		return nil, err
	}
	k, err := readKey(o, r.key, account.Key{Owner: r.on.ID, Created: s.Now()})
	if err != nil {
		return nil, err
	}
	secret := account.NewSecret()
	if k.ID, k.Hash, err = account.SplitSecret(secret); err != nil {
		return nil, err
	}
	switch err := s.Accounts.PutKey(r.Context(), k); {
	case errors.Is(err, account.ErrTooMany):
		const text = "Cannot create more than 100 API Keys"
		return nil, s.atBound(boundKeys, worded(http.StatusForbidden, text, aboutField("", text)))
	case err != nil:
		return nil, err
	}
	s.audit(r, "api key created", k.ID, nil, viewKey(k))
	return newKeyView{secret, viewKey(k)}, nil
}

// readKey reads name and scopes of a request over what the key has. A new
// key without scopes has full access (contract §2.2), which only a caller
// with full access can give.
func readKey(o *object, caller, k account.Key) (account.Key, error) {
	isNew := k.ID == ""
	readName(o, &k, isNew)
	var names []string
	o.texts("scopes", &names)
	if err := o.err(); err != nil {
		return k, err
	}
	if !o.has("scopes") {
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

func readName(o *object, k *account.Key, required bool) {
	const most = 255
	if required && !o.has("name") {
		o.refuse("name", "name is required")
		return
	}
	o.text("name", most, &k.Name)
	if len(o.faults) == 0 && k.Name == "" {
		o.refuse("name", "name must not be empty")
	}
}

// findKey finds the key of the path, if it is the account's.
func (s *server) findKey(r *request) (account.Key, error) {
	k, err := s.Accounts.Key(r.Context(), r.PathValue("id"))
	if err == nil && k.Owner != r.on.ID {
		err = account.ErrNotFound
	}
	return k, err
}

func (s *server) getKey(r *request) (any, error) {
	k, err := s.findKey(r)
	if err != nil {
		return nil, err
	}
	return viewKey(k), nil
}

func (s *server) renameKey(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	var named account.Key
	readName(o, &named, true)
	if err := o.err(); err != nil {
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

func (s *server) replaceKey(r *request) (any, error) {
	o, err := r.object(largeBody)
	if err != nil {
		return nil, err
	}
	k, err := s.changeKey(r, func(k account.Key) (account.Key, error) { return readKey(o, r.key, k) })
	if err != nil {
		return nil, err
	}
	return viewKey(k), nil
}

// changeKey changes the key of the path. Whether it exists is told last
// (contract §2.3).
func (s *server) changeKey(r *request, change func(account.Key) (account.Key, error)) (account.Key, error) {
	id := r.PathValue("id")
	var before account.Key
	after, err := s.Accounts.UpdateKey(r.Context(), id, func(k *account.Key) (err error) {
		if k.Owner != r.on.ID {
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
	s.audit(r, "api key changed", id, viewKey(before), viewKey(after))
	return after, nil
}

func (s *server) deleteKey(r *request) (any, error) {
	k, err := s.findKey(r)
	if err != nil {
		return nil, err
	}
	if err := s.Accounts.DeleteKey(r.Context(), k.ID); err != nil {
		return nil, err
	}
	s.audit(r, "api key deleted", k.ID, viewKey(k), nil)
	return nil, nil
}
