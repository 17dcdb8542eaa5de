package policy

import (
	"cmp"
	"slices"

	"tlsrelay/policy/domain"
)

// Requirement is one thing that a connection must have.
type Requirement string

// The requirements, in the order in which Judge looks at them.
const (
	Encryption     Requirement = "encryption"
	MinimumVersion Requirement = "version"
	ForwardSecret  Requirement = "forward_secrecy"
	ValidCert      Requirement = "valid_cert"
	MXAuthentic    Requirement = "mx_authentic"
	HostKeyword    Requirement = "requiretls_keyword" // RFC 8689 §4.2.1: the next host must list REQUIRETLS
)

// Source is who demands something; it decides what happens when it cannot be
// had, and who is told (tls-policy §1).
type Source string

// The sources of a demand on the sender's side.
const (
	FromAccount  Source = "account"
	FromParent   Source = "parent"   // the parent's floor under its subusers
	FromOverride Source = "override" // the account's rule for this recipient domain
	FromMessage  Source = "message"  // REQUIRETLS on MAIL FROM
)

// Demand is one requirement and who made it.
type Demand struct {
	Requirement Requirement `json:"requirement"`
	Source      Source      `json:"source"`
	Version     Version     `json:"version,omitempty"` // of MinimumVersion
}

// Sender is everything demanded on the sender's side of one message.
type Sender struct {
	Account    Settings
	Parent     *Settings // the parent's, where it enforces them on subusers
	Override   *Settings // the account's rule for the recipient domain
	RequireTLS bool      // the message came with REQUIRETLS (RFC 8689)
}

// MXAuth is how a host was learned to be the recipient's.
type MXAuth string

// An MX from unsigned DNS is nobody's word; one with the AD bit of a resolver
// that we trust is the zone owner's.
const (
	MXUnsigned MXAuth = "none"
	MXDNSSEC   MXAuth = "dnssec"
)

// Facts are what is known of a host before it is dialled.
type Facts struct {
	Host      domain.Name // the name in the MX record, not the target of an alias; zero for an address literal
	Literal   string      // the address of user@[192.0.2.1], without brackets
	Recipient domain.Name // the recipient domain; zero for a literal and for a configured route
	MX        MXAuth
}

// Decision is every demand on a connection to one host, and the names its
// certificate may carry.
type Decision struct {
	Demands []Demand
	// Names are the reference identifiers (RFC 9525): the MX host name first,
	// then the recipient domain. One match is enough (tls-policy §5).
	Names []string
	// MX is how the host was learned, for the record and for MXAuthentic.
	MX MXAuth
	// Hold is on_violation: defer.
	Hold bool

	floor     Version
	validCert bool
}

// Decide merges all demands on the sender's side, the strictest on each axis,
// and keeps whose each one is.
func Decide(s Sender, f Facts) Decision {
	d := Decision{Names: referenceNames(f), MX: cmp.Or(f.MX, MXUnsigned), Hold: s.Account.OnViolation == Hold}
	d.addSettings(s.Account, FromAccount)
	if s.Parent != nil && s.Parent.EnforceOnSubusers {
		d.addSettings(*s.Parent, FromParent)
	}
	if s.Override != nil {
		d.addSettings(*s.Override, FromOverride)
	}
	if s.RequireTLS {
		d.add(Demand{Requirement: Encryption, Source: FromMessage})
		d.add(Demand{Requirement: ValidCert, Source: FromMessage})
		d.add(Demand{Requirement: MXAuthentic, Source: FromMessage})
		if !s.relaxed() {
			d.add(Demand{Requirement: HostKeyword, Source: FromMessage})
		}
	}
	return d
}

// relaxed reports whether a last hop without the REQUIRETLS keyword will do. A
// subuser is not looser than a parent that enforces its settings (tls-policy
// §14).
func (s Sender) relaxed() bool {
	enforced := s.Parent != nil && s.Parent.EnforceOnSubusers
	return s.Account.RelaxedRequireTLS && (!enforced || s.Parent.RelaxedRequireTLS)
}

// addSettings turns one set of settings into demands.
func (d *Decision) addSettings(s Settings, from Source) {
	if !s.RequireTLS && !s.RequireValidCert {
		return
	}
	d.add(Demand{Requirement: Encryption, Source: from})
	d.add(Demand{Requirement: MinimumVersion, Source: from, Version: s.Floor()})
	if s.ForwardSecrecy {
		d.add(Demand{Requirement: ForwardSecret, Source: from})
	}
	if s.RequireValidCert {
		d.add(Demand{Requirement: ValidCert, Source: from})
	}
	if s.AuthenticMX {
		d.add(Demand{Requirement: MXAuthentic, Source: from})
	}
}

// add records a demand unless a stricter or equal one of its kind stands.
func (d *Decision) add(n Demand) {
	i := slices.IndexFunc(d.Demands, func(o Demand) bool { return o.Requirement == n.Requirement })
	switch {
	case i < 0:
		d.Demands = append(d.Demands, n)
	case n.Version > d.Demands[i].Version:
		d.Demands[i] = n
	}
	d.floor = max(d.floor, n.Version)
	d.validCert = d.validCert || n.Requirement == ValidCert
}

// Opportunistic reports whether nothing is demanded: encrypt where possible,
// deliver in clear where not.
func (d Decision) Opportunistic() bool { return len(d.Demands) == 0 }

// Floor is the lowest version that will do; 0 when no demand names one.
func (d Decision) Floor() Version { return d.floor }

// NeedsAuthenticMX reports whether it decides how the host was learned.
func (d Decision) NeedsAuthenticMX() bool {
	_, wants := d.demand(MXAuthentic)
	return wants
}

// NeedsValidCert reports whether the certificate decides.
func (d Decision) NeedsValidCert() bool { return d.validCert }

// demand finds the demand for r.
func (d Decision) demand(r Requirement) (Demand, bool) {
	for _, x := range d.Demands {
		if x.Requirement == r {
			return x, true
		}
	}
	return Demand{}, false
}

// Class sorts decisions into the few kinds that queue apart, so that the
// refusals of one account never delay another's mail (tls-policy §9).
type Class string

// The policy classes, from nothing demanded to everything.
const (
	ClassOpportunistic Class = "o"
	ClassEncrypt       Class = "t"
	ClassValid         Class = "v"
)

// Class gives the policy class of d.
func (d Decision) Class() Class {
	switch {
	case d.Opportunistic():
		return ClassOpportunistic
	case d.validCert:
		return ClassValid
	}
	return ClassEncrypt
}

func referenceNames(f Facts) []string {
	switch {
	case f.Literal != "":
		return []string{f.Literal}
	case f.Host.IsZero() && f.Recipient.IsZero():
		return nil // of a decision that is no host's
	}
	names := make([]string, 0, 2)
	for _, n := range []domain.Name{f.Host, f.Recipient} {
		if !n.IsZero() && !slices.Contains(names, n.String()) {
			names = append(names, n.String())
		}
	}
	return names
}
