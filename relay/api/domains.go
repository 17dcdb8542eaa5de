package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
)

// domainView is an account's rule for one recipient domain.
type domainView struct {
	Domain           string      `json:"domain"`
	RequireTLS       bool        `json:"require_tls"`
	RequireValidCert bool        `json:"require_valid_cert"`
	Version          json.Number `json:"version"`
	MXAuthRequired   bool        `json:"mx_auth_required"`
	ForwardSecrecy   bool        `json:"require_forward_secrecy"`
	Expires          *time.Time  `json:"expires"` // null: never
	Reason           string      `json:"reason"`
	InForce          bool        `json:"in_force"`
	Updated          time.Time   `json:"updated"`
}

func viewDomain(o account.Override, now time.Time) domainView {
	v := domainView{
		Domain:     o.Domain.String(),
		RequireTLS: o.Settings.RequireTLS, RequireValidCert: o.Settings.RequireValidCert,
		Version:        json.Number(o.Settings.Floor().String()),
		MXAuthRequired: o.Settings.AuthenticMX, ForwardSecrecy: o.Settings.ForwardSecrecy,
		Reason: o.Reason, InForce: o.InForce(now), Updated: o.Updated.UTC(),
	}
	if !o.Expires.IsZero() {
		t := o.Expires.UTC()
		v.Expires = &t
	}
	return v
}

func (s *server) getDomain(r *request) (any, error) {
	name, err := parseDomain(r.PathValue("domain"))
	if err != nil {
		return nil, err
	}
	rule, err := s.Overrides.Override(r.Context(), r.on.ID, name)
	if err != nil {
		return nil, err
	}
	return viewDomain(rule, s.Now()), nil
}

// putDomain makes or replaces a rule; fields that are not given have their
// defaults, as PUT has it.
func (s *server) putDomain(r *request) (any, error) {
	o, err := r.object(smallBody)
	if err != nil {
		return nil, err
	}
	name, err := parseDomain(r.PathValue("domain"))
	if err != nil {
		return nil, err
	}
	rule := account.Override{Account: r.on.ID, Domain: name, Owner: r.owner.Username, Updated: s.Now()}
	if err := readRule(o, &rule, s.Now()); err != nil {
		return nil, err
	}
	before, err := s.ruleBefore(r, name)
	if err != nil {
		return nil, err
	}
	switch err := s.Overrides.PutOverride(r.Context(), rule); {
	case errors.Is(err, account.ErrTooMany):
		text := "Cannot create more domain rules: an account may have " + strconv.Itoa(account.MaxOverrides) +
			", and fewer while all accounts have " + strconv.Itoa(account.MaxOverridesOfAll)
		return nil, s.atBound(boundRules, worded(http.StatusForbidden, text, aboutField("", text)))
	case err != nil:
		return nil, err
	}
	after := viewDomain(rule, s.Now())
	s.audit(r, "domain rule changed", name.String(), before, after)
	return after, nil
}

func readRule(o *object, rule *account.Override, now time.Time) error {
	change, err := parseTLS(o)
	if err != nil {
		return err
	}
	change.apply(&rule.Settings)
	o.boolean("mx_auth_required", &rule.Settings.AuthenticMX)
	o.boolean("require_forward_secrecy", &rule.Settings.ForwardSecrecy)
	o.unsupported("report_only", "valid_cert_pkix_only")
	o.textOrNull("reason", 1000, &rule.Reason)
	var expires string
	o.textOrNull("expires", 64, &expires)
	if expires != "" {
		rule.Expires, err = time.Parse(time.RFC3339, expires)
		// time.Parse takes zones of 24 hours, which cannot be written, and a zone may
		// lead out of the year 9999: UTC is what is stored.
		rule.Expires = rule.Expires.UTC()
		if err != nil || !rule.Expires.After(now) || rule.Expires.Year() > 9999 {
			o.refuse("expires", "expires must be a future time as in RFC 3339")
		}
	}
	if len(o.faults) == 0 && !rule.Settings.RequireTLS && !rule.Settings.RequireValidCert {
		// The stricter of rule and account holds, so it would do nothing.
		o.refuse("require_tls", "one of require_tls and require_valid_cert must be true: a rule can only tighten")
	}
	return o.err()
}

// ruleBefore is the view of the rule that stands, nil when there is none.
func (s *server) ruleBefore(r *request, name domain.Name) (any, error) {
	rule, err := s.Overrides.Override(r.Context(), r.on.ID, name)
	switch {
	case errors.Is(err, account.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return viewDomain(rule, s.Now()), nil
}

func (s *server) deleteDomain(r *request) (any, error) {
	name, err := parseDomain(r.PathValue("domain"))
	if err != nil {
		return nil, err
	}
	before, err := s.ruleBefore(r, name)
	if err != nil {
		return nil, err
	}
	if err := s.Overrides.DeleteOverride(r.Context(), r.on.ID, name); err != nil {
		return nil, err
	}
	s.audit(r, "domain rule deleted", name.String(), before, nil)
	return nil, nil
}
