package api

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"tlsrelay/policy/account"
	"tlsrelay/relay/web"
)

// admit finds out who calls and on whose behalf, and whether they may.
func (s *server) admit(r *request, to route) error {
	var err error
	var secret string
	if r.owner, r.key, secret, err = s.authenticate(r); err != nil {
		return err
	}
	placed := web.Shown(r.w, r.Request, r.owner.ID, secret)
	if err := s.limit(r); err != nil {
		return err
	}
	if !placed {
		r.w.Header().Set("Retry-After", "1")
		return refused(http.StatusTooManyRequests)
	}
	if to.scope != anyKey && !r.key.Allows(to.scope) {
		return refused(http.StatusForbidden)
	}
	r.on, err = s.actsOn(r, r.Header.Values("On-Behalf-Of"))
	return err
}

func (s *server) authenticate(r *request) (owner account.Account, key account.Key, secret string, err error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return owner, key, "", unauthenticated()
	}
	// The scheme is case-insensitive (RFC 9110 §11.1).
	scheme, secret, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return owner, key, "", refused(http.StatusUnauthorized)
	}
	secret = strings.TrimSpace(secret)
	owner, key, err = account.Authenticate(r.Context(), s.Accounts, secret)
	if errors.Is(err, account.ErrDenied) {
		err = refused(http.StatusUnauthorized)
	}
	return owner, key, secret, err
}

// limit counts the request against its key and against the account of the key: a
// hundred keys are not a hundred shares. The headers speak of the key, unless it is
// the account that has nothing left.
func (s *server) limit(r *request) error {
	if s.RequestsPerMinute <= 0 {
		return nil
	}
	now := s.Now()
	of, a := boundRequests, s.limits.key.take(r.key.ID, now)
	if !a.exceeded {
		if all := s.limits.account.take(string(r.owner.ID), now); all.exceeded {
			of, a = boundAccountRequests, all
		}
	}
	h := r.w.Header()
	h.Set("X-RateLimit-Limit", strconv.Itoa(a.limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(a.remaining))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(a.reset, 10))
	if a.exceeded {
		h.Set("Retry-After", strconv.FormatInt(a.reset-now.Unix(), 10))
		return s.atBound(of, refused(http.StatusTooManyRequests))
	}
	return nil
}

// actsOn finds the account that the values of on-behalf-of mean. Whatever is
// not the caller's to act on gets the same answer, so that nobody learns which
// accounts exist; and so do two values, of which one could be empty and mean the
// caller itself.
func (s *server) actsOn(r *request, values []string) (account.Account, error) {
	switch {
	case len(values) == 0, len(values) == 1 && strings.Trim(values[0], " \t") == "":
		return r.owner, nil
	case len(values) > 1:
		return account.Account{}, refused(http.StatusForbidden)
	}
	kind, name := account.KindSubuser, strings.TrimSpace(values[0])
	if id, ok := customerID(name); ok {
		kind, name = account.KindCustomer, id
	}
	own := r.owner.Kind
	if own == account.KindParent {
		own = account.KindSubuser // the parent is addressed by its username, too
	}
	if kind == own && name == r.owner.Username {
		return r.owner, nil
	}
	if r.owner.Kind != account.KindParent {
		return account.Account{}, refused(http.StatusForbidden)
	}
	on, err := s.Accounts.AccountNamed(r.Context(), kind, name)
	switch {
	case errors.Is(err, account.ErrNotFound), err == nil && on.Disabled:
		return account.Account{}, refused(http.StatusForbidden)
	}
	return on, err
}

// customerID reads "account-id ID", in any letter case and with any number
// of spaces between.
func customerID(value string) (id string, ok bool) {
	const prefix = "account-id"
	if len(value) <= len(prefix) || !strings.EqualFold(value[:len(prefix)], prefix) {
		return "", false
	}
	id = strings.TrimLeft(value[len(prefix):], " \t")
	return id, len(id) < len(value)-len(prefix)
}
