package admin

import (
	"context"
	"net/http"
	"time"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// CheckRequest asks what delivery to a domain would come to: under the demands
// of Account, or of nobody where none is named, changed by what else is set.
type CheckRequest struct {
	Domain           string         `json:"domain"`
	Account          string         `json:"account,omitempty"`
	RequireTLS       *bool          `json:"require_tls,omitempty"`
	RequireValidCert *bool          `json:"require_valid_cert,omitempty"`
	Version          policy.Version `json:"version,omitempty"`
}

// Change changes settings as the request says.
func (c CheckRequest) Change(s *policy.Settings) {
	set(&s.RequireTLS, c.RequireTLS)
	set(&s.RequireValidCert, c.RequireValidCert)
	if c.Version != 0 {
		s.MinVersion = c.Version
	}
}

func (s *server) check(r *http.Request) (any, error) {
	var in CheckRequest
	if err := read(r, &in); err != nil {
		return nil, err
	}
	address, err := relay.ParseAddress("postmaster@"+in.Domain, true)
	if err != nil {
		return nil, badRequest("domain: not a domain name or address literal")
	}
	var sender policy.Sender
	if in.Account != "" {
		a, err := FindAccount(r, s.Accounts, in.Account)
		if err != nil {
			return nil, err
		}
		sender, err = account.SenderTo(r.Context(), struct {
			account.Store
			account.OverrideStore
		}{s.Accounts, s.Overrides}, a.ID, address.Destination(), time.Now())
		if err != nil {
			return nil, err
		}
	}
	in.Change(&sender.Account)
	select {
	case s.checks <- struct{}{}:
		defer func() { <-s.checks }()
	default:
		return nil, problem{http.StatusTooManyRequests, "too many checks are under way; try again"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), checkTimeout)
	defer cancel()
	return s.Prober.Probe(ctx, address.Destination(), sender), nil
}

// The bounds of the operator's checks, whose slots no tenant can take.
const (
	maxChecks    = 16 // under way
	checkTimeout = 2 * time.Minute
)
