package api

import (
	"context"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
	"tlsrelay/relay"
	"tlsrelay/relay/api/rest"
)

// check looks at a domain's hosts under the account's demands, changed by
// what the request says, as a delivery would find them now.
func (s *server) check(r *rest.Request, o *rest.Object) (any, error) {
	o.Require("domain")
	var given string
	o.Text("domain", 1000, &given)
	change, err := parseTLS(o, o.Raw("version"))
	if err != nil {
		return nil, err
	}
	to, err := parseDomain(given)
	if err != nil {
		return nil, err
	}
	sender, err := s.sender(r, r.On.ID, to.String())
	if err != nil {
		return nil, err
	}
	return s.look(r, s.checks, to.String(), sender, change)
}

// checkFor is check under the demands of the account that the operator names, or of
// nobody. The domain may be an address literal.
func (s *server) checkFor(r *rest.Request, o *rest.Object) (any, error) {
	var given, name string
	o.Text("domain", 1000, &given)
	o.Text("account", 320, &name)
	address, err := relay.ParseAddress("postmaster@"+given, true)
	if err != nil {
		o.Wrong("domain", "domain: not a domain name or address literal")
	}
	change, err := parseTLS(o, o.Unquoted("version")) // the command line gives it as text
	if err != nil {
		return nil, err
	}
	var sender policy.Sender
	if name != "" {
		a, err := rest.Find(r.Context(), s.Accounts, name)
		if err != nil {
			return nil, err
		}
		if sender, err = s.sender(r, a.ID, address.Destination()); err != nil {
			return nil, err
		}
	}
	return s.look(r, s.operatorChecks, address.Destination(), sender, change)
}

// sender gives what an account demands of a destination.
func (s *server) sender(r *rest.Request, who account.ID, destination string) (policy.Sender, error) {
	return account.SenderTo(r.Context(), struct {
		account.Store
		account.OverrideStore
	}{s.Accounts, s.Overrides}, who, destination, r.Now())
}

func (s *server) look(r *rest.Request, slots *rest.Slots, destination string, sender policy.Sender, change tlsChange) (report any, err error) {
	change.apply(&sender.Account)
	err = slots.Within(r, func(ctx context.Context) (err error) {
		ctx, cancel := context.WithTimeout(ctx, checkTimeout)
		defer cancel()
		report, err = s.Checker.Check(ctx, destination, sender)
		return err
	})
	return report, err
}

func parseDomain(given string) (domain.Name, error) {
	name, err := domain.Parse(given)
	if err != nil {
		return name, rest.InvalidField("domain", "domain must be a domain name")
	}
	return name, nil
}
