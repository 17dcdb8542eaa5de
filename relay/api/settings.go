package api

import (
	"cmp"
	"crypto/fips140"
	"encoding/json"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
)

// settingsView is what the contract has no field for (interface §5).
type settingsView struct {
	OnViolation       policy.OnViolation `json:"on_violation"`
	EnforceOnSubusers bool               `json:"enforce_on_subusers"`
	RequireTLS        string             `json:"requiretls"`
	MXAuthRequired    bool               `json:"mx_auth_required"`
	ForwardSecrecy    bool               `json:"require_forward_secrecy"`
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

func viewSettings(sender policy.Sender, fips bool) settingsView {
	own := sender.Account
	v := settingsView{
		OnViolation:       cmp.Or(own.OnViolation, policy.Drop),
		EnforceOnSubusers: own.EnforceOnSubusers,
		RequireTLS:        strict,
		MXAuthRequired:    own.AuthenticMX,
		ForwardSecrecy:    own.ForwardSecrecy,
	}
	if own.RelaxedRequireTLS {
		v.RequireTLS = relaxed
	}
	if floor := sender.Demands().Floor(); floor != 0 {
		if fips {
			floor = max(floor, policy.TLS12) // FIPS 140 mode has no 1.1 (tls-policy §10)
		}
		n := json.Number(floor.String())
		v.EffectiveVersion = &n
	}
	return v
}

func (s *server) viewSettingsOf(r *request) (any, error) {
	sender, err := account.Sender(r.Context(), s.Accounts, r.on.ID)
	if err != nil {
		return nil, err
	}
	return viewSettings(sender, fips140.Enabled()), nil
}

func (s *server) getSettings(r *request) (any, error) { return s.viewSettingsOf(r) }

func (s *server) patchSettings(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	// Read once for its faults alone: the values are read again over what is
	// stored, inside the change.
	if err := readSettings(o, &policy.Settings{}, r.on.Kind); err != nil {
		return nil, err
	}
	var before policy.Settings
	after, err := s.Accounts.UpdateAccount(r.Context(), r.on.ID, func(a *account.Account) error {
		before = a.Settings
		return readSettings(o, &a.Settings, a.Kind)
	})
	if err != nil {
		return nil, err
	}
	if before != after.Settings {
		s.audit(r, "relay settings changed", after.Username, before, after.Settings)
	}
	return s.viewSettingsOf(r)
}

// readSettings reads the fields that are there into to.
func readSettings(o *object, to *policy.Settings, kind account.Kind) error {
	onViolation, requireTLS := string(policy.Drop), strict
	o.text("on_violation", 16, &onViolation)
	o.text("requiretls", 16, &requireTLS)
	o.boolean("enforce_on_subusers", &to.EnforceOnSubusers)
	o.boolean("mx_auth_required", &to.AuthenticMX)
	o.boolean("require_forward_secrecy", &to.ForwardSecrecy)
	switch v := policy.OnViolation(onViolation); {
	case v != policy.Drop && v != policy.Defer:
		o.refuse("on_violation", "on_violation must be one of drop, defer")
	case o.has("on_violation"):
		to.OnViolation = v
	}
	switch {
	case requireTLS != strict && requireTLS != relaxed:
		o.refuse("requiretls", "requiretls must be one of strict, relaxed")
	case o.has("requiretls"):
		to.RelaxedRequireTLS = requireTLS == relaxed
	}
	if to.EnforceOnSubusers && kind != account.KindParent {
		o.refuse("enforce_on_subusers", "enforce_on_subusers is for the parent account")
	}
	o.unsupported("report_only", "valid_cert_pkix_only")
	if o.has("effective_version") {
		o.refuse("effective_version", "effective_version is read-only")
	}
	return o.err()
}
