package admin

import (
	"net/http"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// CheckRequest asks what delivery to a domain would come to, under the given
// demands, or under those of Account where it is named.
type CheckRequest struct {
	Domain           string         `json:"domain"`
	Account          string         `json:"account,omitempty"`
	RequireTLS       bool           `json:"require_tls,omitempty"`
	RequireValidCert bool           `json:"require_valid_cert,omitempty"`
	Version          policy.Version `json:"version,omitempty"`
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
	sender := policy.Sender{Account: policy.Settings{
		RequireTLS: in.RequireTLS, RequireValidCert: in.RequireValidCert, MinVersion: in.Version,
	}}
	if in.Account != "" {
		a, err := FindAccount(r, s.Accounts, in.Account)
		if err != nil {
			return nil, err
		}
		if sender, err = account.Sender(r.Context(), s.Accounts, a.ID); err != nil {
			return nil, err
		}
	}
	return s.Prober.Probe(r.Context(), address.Destination(), sender), nil
}
