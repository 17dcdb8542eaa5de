package api

import (
	"errors"
	"net/http"
	"strings"

	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
	"tlsrelay/relay/web"
)

// admit finds out who calls and on whose behalf, and whether they may.
func (s *server) admit(r *rest.Request, to rest.Route) error {
	var err error
	var secret string
	if r.Owner, r.Key, secret, err = s.authenticate(r); err != nil {
		return err
	}
	placed := web.Shown(r.W, r.Request, r.Owner.ID, secret)
	if err := s.limit(r); err != nil {
		return err
	}
	if !placed {
		r.W.Header().Set("Retry-After", "1")
		return rest.FaultOf(http.StatusTooManyRequests)
	}
	if to.Scope != rest.AnyKey && !r.Key.Allows(to.Scope) {
		return rest.FaultOf(http.StatusForbidden)
	}
	r.On, err = s.actsOn(r, r.Header.Values("On-Behalf-Of"))
	return err
}

// admitOperator admits a request that the operator's listener has let through
// (relay/admin): it may do everything, and acts on the account that its path names.
func (s *server) admitOperator(r *rest.Request, to rest.Route) (err error) {
	r.Key = account.Key{Full: true}
	if strings.Contains(to.Path, "{account}") {
		r.On, err = rest.Find(r.Context(), s.Accounts, r.PathValue("account"))
	}
	return err
}

func (s *server) authenticate(r *rest.Request) (owner account.Account, key account.Key, secret string, err error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return owner, key, "", rest.Unauthenticated()
	}
	// The scheme is case-insensitive (RFC 9110 §11.1).
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return owner, key, "", rest.FaultOf(http.StatusUnauthorized)
	}
	secret = strings.TrimSpace(secret)
	owner, key, err = account.Authenticate(r.Context(), s.Accounts, secret)
	if errors.Is(err, account.ErrDenied) {
		err = rest.FaultOf(http.StatusUnauthorized)
	}
	return owner, key, secret, err
}

// limit counts the request against its key and against the account of the key: a
// hundred keys are not a hundred shares. The headers speak of the key, unless it is
// the account that has nothing left.
func (s *server) limit(r *rest.Request) error {
	if s.RequestsPerMinute <= 0 {
		return nil
	}
	now := r.Now()
	bound, a := boundRequests, s.limits.key.Take(r.Key.ID, now)
	if !a.Exceeded {
		if all := s.limits.account.Take(string(r.Owner.ID), now); all.Exceeded {
			bound, a = boundAccountRequests, all
		}
	}
	a.Tell(r.W.Header(), now)
	if a.Exceeded {
		return rest.FaultOf(http.StatusTooManyRequests).At(bound)
	}
	return nil
}

// actsOn finds the account that the values of on-behalf-of mean. The answer is the
// same for every account that the caller may not act on, so that nobody learns which
// accounts exist. Two values are refused: one of them could be empty, which means the
// caller itself.
func (s *server) actsOn(r *rest.Request, values []string) (account.Account, error) {
	switch {
	case len(values) == 0, len(values) == 1 && strings.Trim(values[0], " \t") == "":
		return r.Owner, nil
	case len(values) > 1:
		return account.Account{}, rest.FaultOf(http.StatusForbidden)
	}
	kind, name := rest.Named(values[0])
	own := r.Owner.Kind
	if own == account.KindParent {
		own = account.KindSubuser // the parent is addressed by its username, too
	}
	if kind == own && name == r.Owner.Username {
		return r.Owner, nil
	}
	if r.Owner.Kind != account.KindParent {
		return account.Account{}, rest.FaultOf(http.StatusForbidden)
	}
	on, err := s.Accounts.AccountNamed(r.Context(), kind, name)
	switch {
	case errors.Is(err, account.ErrNotFound), err == nil && on.Disabled:
		return account.Account{}, rest.FaultOf(http.StatusForbidden)
	}
	return on, err
}
