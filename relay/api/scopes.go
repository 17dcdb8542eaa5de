package api

import (
	"slices"

	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
)

// listScopes answers what the calling key may do; clients probe with it.
func (s *server) listScopes(r *rest.Request) (any, error) {
	return map[string][]account.Scope{"scopes": scopesOf(r.Key)}, nil
}

// scopesOf gives the scopes of a key by name, never nil.
func scopesOf(k account.Key) []account.Scope {
	if k.Full {
		return account.AllScopes()
	}
	return append([]account.Scope{}, k.Scopes...)
}

// grantable checks the scopes that a caller wants to give to a key: they must
// exist, here or at SendGrid, and each must be held by the caller or by the key
// already, so that nobody makes a key stronger than their own. This includes
// scopes that open nothing: a later version may have a use for them.
// Programs add conditions out of habit; they give no strength.
func grantable(names []string, caller, holder account.Key) ([]account.Scope, bool) {
	scopes := make([]account.Scope, 0, len(names))
	for _, name := range names {
		scope := account.Scope(name)
		if !scope.Grantable() || !scope.Condition() && !caller.Allows(scope) && !holder.Allows(scope) {
			return nil, false
		}
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	return scopes, true
}
