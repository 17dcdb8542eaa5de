package policy

import (
	"cmp"
	"slices"

	"tlsrelay/policy/domain"
)

// Requirement is one thing that a connection must have.
type Requirement string

// The requirements. judgeReady looks at them in this order, but at HostKeyword before
// MXAuthentic.
const (
	Encryption     Requirement = "encryption"
	MinimumVersion Requirement = "version"
	ForwardSecret  Requirement = "forward_secrecy"
	ValidCert      Requirement = "valid_cert"
	MXAuthentic    Requirement = "mx_authentic"
	HostKeyword    Requirement = "requiretls_keyword" // RFC 8689 §4.2.1: the next host must list REQUIRETLS
)

// Source is who demands something. It decides what happens when no host can
// give it, and who is told.
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

// Sender is everything that the sender's side says about one message.
type Sender struct {
	Account    Settings
	Parent     *Settings // the parent's, where it enforces them on subusers
	Override   *Settings // the account's rule for the recipient domain
	RequireTLS bool      // the message came with REQUIRETLS (RFC 8689)
}

// Demands are what a message demands of every host it may go to. The zero
// Demands are those of opportunistic mail: encrypt where possible, deliver in
// clear where not.
type Demands struct {
	// List has each requirement at most once: the strictest demand for it, and
	// of equally strict ones the first.
	List []Demand
	// Defer keeps a message that violates them in the queue until its lifetime
	// ends, where it would otherwise be blocked at once (on_violation: defer).
	Defer bool

	floor     Version
	validCert bool
}

// Demands merges what the sender's side says: the strictest wins on each axis
// (encryption, version, authentication) by itself, and the source of each
// demand is kept.
func (s Sender) Demands() Demands {
	d := Demands{Defer: s.Account.OnViolation == Defer}
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
// subuser is never looser than a parent that enforces its settings.
func (s Sender) relaxed() bool {
	enforced := s.Parent != nil && s.Parent.EnforceOnSubusers
	return s.Account.RelaxedRequireTLS && (!enforced || s.Parent.RelaxedRequireTLS)
}

// addSettings turns one set of settings into demands.
func (d *Demands) addSettings(s Settings, from Source) {
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

// add adds a demand unless an equal or stricter one of its kind is there.
func (d *Demands) add(n Demand) {
	i := slices.IndexFunc(d.List, func(o Demand) bool { return o.Requirement == n.Requirement })
	switch {
	case i < 0:
		d.List = append(d.List, n)
	case n.Version > d.List[i].Version:
		d.List[i] = n
	}
	d.floor = max(d.floor, n.Version)
	d.validCert = d.validCert || n.Requirement == ValidCert
}

// Opportunistic reports whether nothing is demanded.
func (d Demands) Opportunistic() bool { return len(d.List) == 0 }

// Floor is the lowest TLS version that is good enough; 0 when no demand names
// one.
func (d Demands) Floor() Version { return d.floor }

// NeedsAuthenticMX reports whether the way in which a host was learned decides.
func (d Demands) NeedsAuthenticMX() bool {
	_, wants := d.demand(MXAuthentic)
	return wants
}

// NeedsValidCert reports whether the certificate decides.
func (d Demands) NeedsValidCert() bool { return d.validCert }

// Equal reports whether d and o ask the same, of the same sources.
func (d Demands) Equal(o Demands) bool { return d.Defer == o.Defer && slices.Equal(d.List, o.List) }

// demand finds the demand for r.
func (d Demands) demand(r Requirement) (Demand, bool) {
	for _, x := range d.List {
		if x.Requirement == r {
			return x, true
		}
	}
	return Demand{}, false
}

// failed gives the demand that is not met: for r, or else for encryption.
func (d Demands) failed(r Requirement) Demand {
	f, ok := d.demand(r)
	if !ok {
		f, _ = d.demand(Encryption)
	}
	return f
}

// messageOnly reports whether REQUIRETLS is the only demand.
func (d Demands) messageOnly() bool {
	return !slices.ContainsFunc(d.List, func(x Demand) bool { return x.Source != FromMessage })
}

// Class sorts demands into the few kinds that queue apart, so that the blocks
// of one account never delay another's mail.
type Class string

// The policy classes, from nothing demanded to everything.
const (
	ClassOpportunistic Class = "o"
	ClassEncrypt       Class = "t"
	ClassValid         Class = "v"
)

// Class gives the policy class of d.
func (d Demands) Class() Class {
	switch {
	case d.Opportunistic():
		return ClassOpportunistic
	case d.validCert:
		return ClassValid
	}
	return ClassEncrypt
}

// MXAuth is how a host was learned to be the recipient's.
type MXAuth string

// An MX record from unsigned DNS may be forged. One with the AD bit of a
// resolver that we trust is the zone owner's word.
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

// Decision is every demand on a connection to one host, and the names that its
// certificate may carry. It is made before the host is dialled; what follows from what
// the host shows is a Verdict.
type Decision struct {
	Demands
	// Names are the reference identifiers (RFC 9525 §6.1): the MX host name
	// first, then the recipient domain. A certificate for either is enough: mail
	// hosts have certificates for their MX name, and a certificate for the
	// recipient domain proves more, for a forged MX record cannot choose it.
	Names []string
	// MX is how the host was learned, for the record and for MXAuthentic.
	MX MXAuth
}

// On gives the decision for one host.
func (d Demands) On(f Facts) Decision {
	return Decision{Demands: d, Names: referenceNames(f), MX: cmp.Or(f.MX, MXUnsigned)}
}

func referenceNames(f Facts) []string {
	if f.Literal != "" {
		return []string{f.Literal}
	}
	names := make([]string, 0, 2)
	for _, n := range []domain.Name{f.Host, f.Recipient} {
		if !n.IsZero() && !slices.Contains(names, n.String()) {
			names = append(names, n.String())
		}
	}
	return names
}
