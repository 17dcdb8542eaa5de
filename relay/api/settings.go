package api

import (
	"cmp"
	"crypto/fips140"
	"encoding/json"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
)

// RelaySettings are the settings of an account that SendGrid does not have.
type RelaySettings struct {
	OnViolation       policy.OnViolation `json:"on_violation"`
	EnforceOnSubusers bool               `json:"enforce_on_subusers"`
	RequireTLSOption  string             `json:"requiretls"` // strict or relaxed
	MXAuthRequired    bool               `json:"mx_auth_required"`
	ForwardSecrecy    bool               `json:"require_forward_secrecy"`
}

// settingsView is the object of /relay/v1/settings.
type settingsView struct {
	RelaySettings
	// EffectiveVersion is the lowest version that mail of this account is
	// sent over; null while nothing demands TLS.
	EffectiveVersion *json.Number `json:"effective_version"`
}

// The values of requiretls: whether the next host must list REQUIRETLS
// itself (RFC 8689 §4.2.1).
const (
	strict  = "strict"
	relaxed = "relaxed"
)

func viewRelaySettings(s policy.Settings) RelaySettings {
	v := RelaySettings{
		OnViolation:       cmp.Or(s.OnViolation, policy.Drop),
		EnforceOnSubusers: s.EnforceOnSubusers,
		RequireTLSOption:  strict,
		MXAuthRequired:    s.AuthenticMX,
		ForwardSecrecy:    s.ForwardSecrecy,
	}
	if s.RelaxedRequireTLS {
		v.RequireTLSOption = relaxed
	}
	return v
}

func viewSettings(sender policy.Sender, fips bool) settingsView {
	v := settingsView{RelaySettings: viewRelaySettings(sender.Account)}
	if floor := sender.Demands().Floor(); floor != 0 {
		if fips {
			floor = max(floor, policy.TLS12) // FIPS 140 mode has no 1.1
		}
		n := json.Number(floor.String())
		v.EffectiveVersion = &n
	}
	return v
}

func (s *server) viewSettingsOf(r *rest.Request) (any, error) {
	sender, err := account.Sender(r.Context(), s.Accounts, r.On.ID)
	if err != nil {
		return nil, err
	}
	return viewSettings(sender, fips140.Enabled()), nil
}

func (s *server) getSettings(r *rest.Request) (any, error) { return s.viewSettingsOf(r) }

func (s *server) patchSettings(r *rest.Request, o *rest.Object) (any, error) {
	var before policy.Settings
	after, err := s.Accounts.UpdateAccount(r.Context(), r.On.ID, func(a *account.Account) error {
		before = a.Settings
		return readSettings(o, &a.Settings, a.Kind)
	})
	if err != nil {
		return nil, err
	}
	if before != after.Settings {
		r.Audit("relay settings changed", after.Username, before, after.Settings)
	}
	return s.viewSettingsOf(r)
}

// readSettings reads the fields that are there into to.
func readSettings(o *rest.Object, to *policy.Settings, kind account.Kind) error {
	onViolation, requireTLS := string(policy.Drop), strict
	o.Text("on_violation", 16, &onViolation)
	o.Text("requiretls", 16, &requireTLS)
	o.Bool("enforce_on_subusers", &to.EnforceOnSubusers)
	o.Bool("mx_auth_required", &to.AuthenticMX)
	o.Bool("require_forward_secrecy", &to.ForwardSecrecy)
	switch v := policy.OnViolation(onViolation); {
	case v != policy.Drop && v != policy.Defer:
		o.Wrong("on_violation", "on_violation must be one of drop, defer")
	case o.Has("on_violation"):
		to.OnViolation = v
	}
	switch {
	case requireTLS != strict && requireTLS != relaxed:
		o.Wrong("requiretls", "requiretls must be one of strict, relaxed")
	case o.Has("requiretls"):
		to.RelaxedRequireTLS = requireTLS == relaxed
	}
	if to.EnforceOnSubusers && kind != account.KindParent {
		o.Wrong("enforce_on_subusers", "enforce_on_subusers is for the parent account")
	}
	o.Unsupported("report_only", "valid_cert_pkix_only")
	if o.Has("effective_version") {
		o.Wrong("effective_version", "effective_version is read-only")
	}
	return o.Err()
}
