package api

import (
	"encoding/json"
	"strconv"
	"strings"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
)

// TLSSettings is the object of /v3/user/settings/enforced_tls. Version is a bare
// number, printed from the enum and never through a float, so that 1.1 stays 1.1.
type TLSSettings struct {
	RequireTLS       bool        `json:"require_tls"`
	RequireValidCert bool        `json:"require_valid_cert"`
	Version          json.Number `json:"version"`
}

func viewTLS(s policy.Settings) TLSSettings {
	return TLSSettings{s.RequireTLS, s.RequireValidCert, json.Number(s.Floor().String())}
}

func (s *server) getTLS(r *rest.Request) (any, error) { return viewTLS(r.On.Settings), nil }

func (s *server) patchTLS(r *rest.Request, o *rest.Object) (any, error) {
	change, err := parseTLS(o, o.Raw("version"))
	if err != nil {
		return nil, err
	}
	var before policy.Settings
	after, err := s.Accounts.UpdateAccount(r.Context(), r.On.ID, func(a *account.Account) error {
		before = a.Settings
		change.apply(&a.Settings)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if before != after.Settings {
		r.Audit("tls policy changed", after.Username, viewTLS(before), viewTLS(after.Settings))
	}
	return viewTLS(after.Settings), nil
}

// tlsChange is a partial change; nil leaves a field as it is.
type tlsChange struct {
	requireTLS, requireValidCert *bool
	version                      policy.Version // 0: as it is
}

// parseTLS reads a change; all of it is valid, or there is an error that
// names every wrong field.
func parseTLS(o *rest.Object, version string) (tlsChange, error) {
	var c tlsChange
	if o.Has("require_tls") {
		c.requireTLS = new(bool)
		o.Bool("require_tls", c.requireTLS)
	}
	if o.Has("require_valid_cert") {
		c.requireValidCert = new(bool)
		o.Bool("require_valid_cert", c.requireValidCert)
	}
	if o.Has("version") {
		var ok bool
		if c.version, ok = parseNumberVersion(version); !ok {
			o.Wrong("version", "version must be one of 1.1, 1.2, 1.3")
		}
	}
	return c, o.Err()
}

func (c tlsChange) apply(s *policy.Settings) {
	if c.requireTLS != nil {
		s.RequireTLS = *c.requireTLS
	}
	if c.requireValidCert != nil {
		s.RequireValidCert = *c.requireValidCert
	}
	if c.version != 0 {
		s.MinVersion = c.version
	}
}

// parseNumberVersion compares a JSON number with 1.1, 1.2 and 1.3 by its
// exact value: 1.20 and 12e-1 are 1.2, and 1.2000000000000000001 is not. It
// compares digits: a number with a huge exponent is too large to compute.
func parseNumberVersion(text string) (policy.Version, bool) {
	mantissa, exponent, found := strings.Cut(strings.ToLower(text), "e")
	exp := 0
	if found {
		var err error
		if exp, err = strconv.Atoi(exponent); err != nil {
			return 0, false
		}
	}
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := whole + fraction
	exp -= len(fraction)
	trimmed := strings.TrimRight(digits, "0")
	exp += len(digits) - len(trimmed)
	if exp != -1 {
		return 0, false
	}
	switch strings.TrimLeft(trimmed, "0") {
	case "11":
		return policy.TLS11, true
	case "12":
		return policy.TLS12, true
	case "13":
		return policy.TLS13, true
	}
	return 0, false
}
