package api

import (
	"context"

	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
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
	sender, err := account.SenderTo(r.Context(), struct {
		account.Store
		account.OverrideStore
	}{s.Accounts, s.Overrides}, r.on.ID, to.String(), s.Now())
	if err != nil {
		return nil, err
	}
	change.apply(&sender.Account)

	var report any
	err = s.within(r, &s.checks, boundChecks, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		report, err = s.Checker.Check(ctx, to.String(), sender)
		return err
	})
	return report, err
}

func parseDomain(given string) (domain.Name, error) {
	name, err := domain.Parse(given)
	if err != nil {
		return name, invalidField("domain", "domain must be a domain name")
	}
	return name, nil
}
