package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
	"tlsrelay/relay/api/rest"
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

func (s *server) getDomain(r *rest.Request) (any, error) {
	name, err := parseDomain(r.PathValue("domain"))
	if err != nil {
		return nil, err
	}
	rule, err := s.Overrides.Override(r.Context(), r.On.ID, name)
	if err != nil {
		return nil, err
	}
	return viewDomain(rule, r.Now()), nil
}

// putDomain makes or replaces a rule; fields that are not given have their
// defaults, as PUT has it.
func (s *server) putDomain(r *rest.Request, o *rest.Object) (any, error) {
	name, err := parseDomain(r.PathValue("domain"))
	if err != nil {
		return nil, err
	}
	rule := account.Override{Account: r.On.ID, Domain: name, Owner: r.Owner.Username, Updated: r.Now()}
	if err := readRule(o, &rule, r.Now()); err != nil {
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
		return nil, rest.Worded(http.StatusForbidden, text, rest.AboutField("", text)).At(boundRules)
	case err != nil:
		return nil, err
	}
	after := viewDomain(rule, r.Now())
	r.Audit("domain rule changed", name.String(), before, after)
	return after, nil
}

func readRule(o *rest.Object, rule *account.Override, now time.Time) error {
	change, err := parseTLS(o, o.Raw("version"))
	if err != nil {
		return err
	}
	change.apply(&rule.Settings)
	o.Bool("mx_auth_required", &rule.Settings.AuthenticMX)
	o.Bool("require_forward_secrecy", &rule.Settings.ForwardSecrecy)
	o.Unsupported("report_only", "valid_cert_pkix_only")
	o.TextOrNull("reason", 1000, &rule.Reason)
	var expires string
	o.TextOrNull("expires", 64, &expires)
	if expires != "" {
		rule.Expires, err = time.Parse(time.RFC3339, expires)
		// time.Parse reads zones of 24 hours, which cannot be written again, and a zone can
		// lead out of the year 9999: the rule is stored in UTC.
		rule.Expires = rule.Expires.UTC()
		if err != nil || !rule.Expires.After(now) || rule.Expires.Year() > 9999 {
			o.Wrong("expires", "expires must be a future time as in RFC 3339")
		}
	}
	if o.Err() == nil && !rule.Settings.RequireTLS && !rule.Settings.RequireValidCert {
		// The stricter of rule and account counts, so it would do nothing.
		o.Wrong("require_tls", "one of require_tls and require_valid_cert must be true: a rule can only tighten")
	}
	return o.Err()
}

// ruleBefore is the view of the rule that is stored, nil when there is none.
func (s *server) ruleBefore(r *rest.Request, name domain.Name) (any, error) {
	rule, err := s.Overrides.Override(r.Context(), r.On.ID, name)
	switch {
	case errors.Is(err, account.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return viewDomain(rule, r.Now()), nil
}

func (s *server) deleteDomain(r *rest.Request) (any, error) {
	name, err := parseDomain(r.PathValue("domain"))
	if err != nil {
		return nil, err
	}
	before, err := s.ruleBefore(r, name)
	if err != nil {
		return nil, err
	}
	if err := s.Overrides.DeleteOverride(r.Context(), r.On.ID, name); err != nil {
		return nil, err
	}
	r.Audit("domain rule deleted", name.String(), before, nil)
	return nil, nil
}
