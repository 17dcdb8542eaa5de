package api

import (
	"context"
	"errors"
	"net/http"
	"time"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
)

// Bounds on looking at domains.
const (
	maxChecks    = 16 // at once
	checkTimeout = 2 * time.Minute
)

// check looks at a domain's hosts under the account's demands, changed by
// what the request says, as a delivery would find them now.
func (s *server) check(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	if !o.has("domain") {
		o.refuse("domain", "domain is required")
	}
	var given string
	o.text("domain", 1000, &given)
	change, err := parseTLS(o)
	if err != nil {
		return nil, err
	}
	to, err := parseDomain(given)
	if err != nil {
		return nil, err
	}
	sender, err := s.senderTo(r, to)
	if err != nil {
		return nil, err
	}
	change.apply(&sender.Account)

	select {
	case s.checks <- struct{}{}:
		defer func() { <-s.checks }()
	default:
		r.w.Header().Set("Retry-After", "5")
		return nil, &fault{status: http.StatusServiceUnavailable, detail: "too many checks are under way; try again"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	return s.Checker.Check(ctx, to.String(), sender)
}

func parseDomain(given string) (domain.Name, error) {
	name, err := domain.Parse(given)
	if err != nil {
		return name, invalidField("domain", "domain must be a domain name")
	}
	return name, nil
}

// senderTo gathers what the account demands of mail to a domain.
func (s *server) senderTo(r *request, to domain.Name) (policy.Sender, error) {
	sender, err := account.Sender(r.Context(), s.Accounts, r.on.ID)
	if err != nil {
		return sender, err
	}
	rule, err := s.Overrides.Override(r.Context(), r.on.ID, to)
	switch {
	case errors.Is(err, account.ErrNotFound):
		return sender, nil
	case err == nil && rule.InForce(s.Now()):
		sender.Override = &rule.Settings
	}
	return sender, err
}
