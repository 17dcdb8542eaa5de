package policy

import "tlsrelay/events"

// Evidence is what a host told us of its ability (tls-policy §1).
type Evidence string

// The five classes of evidence.
const (
	OK           Evidence = "ok"
	Conclusive   Evidence = "conclusive"   // c: we spoke to it and it cannot
	Inconclusive Evidence = "inconclusive" // i: TLS should have worked and did not
	Unreachable  Evidence = "unreachable"  // u: no useful conversation
	Suspicious   Evidence = "suspicious"   // x: signs of tampering
)

// Action is what to do on the connection next.
type Action string

// The actions. Proceed goes on to MAIL, encrypted or in clear as the
// connection stands. The retries want a new connection to the same address.
// Next leaves the host.
const (
	Proceed       Action = "proceed"
	SayHELO       Action = "helo" // the host knows no EHLO; opportunistic only
	RetryCompat   Action = "retry_compat"
	RetryNoSNI    Action = "retry_no_sni"
	RetryNoTicket Action = "retry_no_ticket" // the same hello, without a session ticket
	Next          Action = "next"
)

// Verdict is the answer to one observation, with its reason.
type Verdict struct {
	Row    string        `json:"row"` // of tls-policy §4
	Action Action        `json:"action"`
	Class  Evidence      `json:"class"`
	Reason events.Reason `json:"reason,omitempty"`
	// ClearLater marks a host that may be walked again in phase 2, in clear
	// (CLR2). Only an opportunistic decision sets it.
	ClearLater bool `json:"clear_later,omitempty"`
	// Failed is the demand that was not met; zero when none was concerned.
	Failed Demand `json:"failed,omitzero"`
	// Note records something seen that did not decide (a masked STARTTLS in
	// mode O, a bad certificate nobody asked about).
	Note events.Reason `json:"note,omitempty"`
}

// Judge gives the verdict on one observation: the rows of tls-policy §4, in
// the order in which a connection meets them. A connection that the session
// ticket may have spoiled proves nothing, neither for TLS nor against it (C8r).
func (d Decision) Judge(o Observed) Verdict {
	v := d.judge(o)
	if v.Action == Proceed || v.Class == Suspicious || !o.ticketMayBeWhy(v) {
		return v
	}
	return Verdict{Row: "C8r", Action: RetryNoTicket, Class: Unreachable, Reason: o.failure(v.Reason)}
}

func (d Decision) judge(o Observed) Verdict {
	switch o.Stage {
	case StageConnect:
		return Verdict{Row: "A1", Action: Next, Class: Unreachable, Reason: events.ConnectFail}
	case StageGreeting:
		return judgeGreeting(o)
	case StageEHLO:
		return d.judgeEHLO(o)
	case StageStartTLS:
		return d.judgeStartTLS(o)
	case StageHandshake:
		return d.judgeHandshake(o)
	case StageEHLOTLS:
		return d.judgeSecondEHLO(o)
	case StageReady:
		return d.judgeReady(o)
	case StageMail:
		return judgeMail(o)
	}
	// A stage that nobody knows: leave the host, promise nothing.
	return Verdict{Row: "A1", Action: Next, Class: Unreachable, Reason: events.Internal}
}

func judgeGreeting(o Observed) Verdict {
	row := "A1"
	switch {
	case o.Code >= 500:
		row = "A3"
	case o.Code >= 400:
		row = "A2"
	}
	return Verdict{Row: row, Action: Next, Class: Unreachable, Reason: events.GreetingFail}
}

// judgeEHLO judges a first EHLO that was not answered 250, or the HELO after it.
func (d Decision) judgeEHLO(o Observed) Verdict {
	switch {
	case o.Mixed:
		return d.violates("A6", Inconclusive, events.EHLOFail, Encryption)
	case refusesName(o.Code):
		return nameRefused()
	case lacksVerb(o.Code) && !o.HELO && d.Opportunistic():
		return Verdict{Row: "A5", Action: SayHELO, Class: OK, Note: events.EHLOUnsupported}
	case lacksVerb(o.Code) && !o.HELO:
		return d.violates("A5", Conclusive, events.EHLOUnsupported, Encryption)
	case o.Code >= 500:
		return Verdict{Row: "A6", Action: Next, Class: Unreachable, Reason: events.EHLOFail}
	}
	return Verdict{Row: "A7", Action: Next, Class: Unreachable, Reason: events.EHLOFail}
}

// lacksVerb reports a reply that says that the command is not known.
func lacksVerb(code int) bool { return code == 500 || code == 502 }

// refusesName reports a reply to EHLO or HELO that is about the argument, which is
// our own name (RFC 5321 §4.2.2): the verb is known.
func refusesName(code int) bool { return code == 501 || code == 504 }

// nameRefused leaves a host that does not like our name. The fault is ours, so it
// proves nothing about the host's TLS.
func nameRefused() Verdict {
	return Verdict{Row: "A5n", Action: Next, Class: Unreachable, Reason: events.NameRefused}
}

// judgeStartTLS judges a STARTTLS command that did not end in a clean 220.
func (d Decision) judgeStartTLS(o Observed) Verdict {
	switch {
	case o.Injected:
		// Not a byte more to this host in this pass, in clear or otherwise.
		return d.tampered("B5", events.StartTLSInjection)
	case o.Mixed:
		return d.noTLS("B4", Inconclusive, events.StartTLSTempfail)
	case o.Code == 421:
		return Verdict{Row: "B2", Action: Next, Class: Unreachable, Reason: events.StartTLSTempfail}
	case o.Code >= 500:
		return d.noTLS("B3", Conclusive, events.StartTLSRefused)
	case o.Code >= 400:
		return d.noTLS("B1", Inconclusive, events.StartTLSTempfail)
	case o.Code != 0:
		return d.noTLS("B4", Inconclusive, events.StartTLSTempfail)
	case o.Fault == Timeout:
		return d.noTLS("B7", Inconclusive, events.TLSTimeout)
	case o.Fault == Garbage:
		return d.noTLS("B4", Inconclusive, events.StartTLSTempfail)
	}
	return d.noTLS("B6", Inconclusive, events.TLSClosed)
}

// judgeHandshake judges a handshake that failed.
func (d Decision) judgeHandshake(o Observed) Verdict {
	switch o.Fault {
	case Closed:
		return d.compatOr(o, d.noTLS("B6", Inconclusive, events.TLSClosed))
	case Timeout:
		return d.compatOr(o, d.noTLS("B7", Inconclusive, events.TLSTimeout))
	case NotTLS:
		return d.noTLS("B8", Inconclusive, events.TLSNotTLS)
	case VersionLow:
		return d.versionLow()
	case Alert:
		return d.judgeAlert(o)
	case ClientCert:
		return d.noTLS("C5", Conclusive, events.ClientCertRequired)
	case LocalLimit:
		return d.noTLS("C6", Conclusive, events.TLSLocalLimit)
	case Downgrade:
		// RFC 8446 §4.1.3: the server itself says that somebody lowered the
		// version. Not in the table of §4; tls-policy §3 and §10.7 say x.
		return d.tampered("C3", events.TLSDowngrade)
	}
	return d.compatOr(o, d.noTLS("C3", Inconclusive, events.TLSHandshake))
}

// The alerts that have a row of their own (RFC 8446 §6).
const (
	alertHandshakeFailure     = 40
	alertProtocolVersion      = 70
	alertInsufficientSecurity = 71
	alertUnrecognizedName     = 112
	alertCertificateRequired  = 116
)

func (d Decision) judgeAlert(o Observed) Verdict {
	switch o.Alert {
	case alertProtocolVersion:
		return d.versionLow()
	case alertHandshakeFailure, alertInsufficientSecurity:
		return d.compatOr(o, d.noTLS("C2", Conclusive, events.TLSHandshake))
	case alertUnrecognizedName:
		v := d.noTLS("C4", Conclusive, events.TLSHandshake)
		// A certificate that is valid for the host is so however it was asked for.
		if o.Hello != NoSNIHello {
			v.Action = RetryNoSNI
		}
		return v
	case alertCertificateRequired:
		return d.noTLS("C5", Conclusive, events.ClientCertRequired)
	}
	return d.compatOr(o, d.noTLS("C3", Inconclusive, events.TLSHandshake))
}

// judgeSecondEHLO judges an EHLO inside TLS that failed. Only mode O spends a
// second connection on it (C8).
func (d Decision) judgeSecondEHLO(o Observed) Verdict {
	if o.Fault == ClientCert || o.Fault == Alert && o.Alert == alertCertificateRequired {
		// In TLS 1.3 the client finishes first, so the refusal arrives here.
		return d.noTLS("C5", Conclusive, events.ClientCertRequired)
	}
	if refusesName(o.Code) && !o.Mixed {
		return nameRefused()
	}
	reason := events.TLSClosed
	switch {
	case o.Code != 0:
		reason = events.EHLOFail
	case o.Fault == Timeout:
		reason = events.TLSTimeout
	}
	v := d.noTLS("C8", Inconclusive, reason)
	if d.Opportunistic() {
		return d.compatOr(o, v)
	}
	return v
}

// judgeReady judges a connection that could carry MAIL: in clear, or with a
// finished handshake behind it.
func (d Decision) judgeReady(o Observed) Verdict {
	if o.TLS == nil {
		return d.judgeClear(o)
	}
	s := o.TLS
	if s.Version < d.floor {
		return d.versionLow()
	}
	if _, wants := d.demand(ForwardSecret); wants && !s.ForwardSecret {
		return d.violates("C2", Conclusive, events.ForwardSecrecy, ForwardSecret)
	}
	if d.validCert && !s.Cert.Valid() {
		return d.violates("C7", Conclusive, s.Cert.Faults[0], ValidCert)
	}
	if _, wants := d.demand(HostKeyword); wants && !o.RequireTLS {
		return d.violates("C9", Conclusive, events.RequireTLSUnsupported, HostKeyword)
	}
	if d.NeedsAuthenticMX() && d.MX != MXDNSSEC {
		return d.violates("C9", Conclusive, events.MXUnauthenticated, MXAuthentic)
	}
	v := Verdict{Row: "ENC", Action: Proceed, Class: OK}
	if !s.Cert.Valid() {
		v.Row, v.Note = "C7", s.Cert.Faults[0]
	}
	return v
}

func (d Decision) judgeClear(o Observed) Verdict {
	if d.Opportunistic() {
		v := Verdict{Row: "A4", Action: Proceed, Class: OK}
		if o.StartTLS == Masked {
			v.Row, v.Note = "A8", events.StartTLSMasked
		}
		return v
	}
	if o.StartTLS == Masked {
		return d.violates("A8", Suspicious, events.StartTLSMasked, Encryption)
	}
	return d.violates("A4", Conclusive, events.StartTLSNotOffered, Encryption)
}

// judgeMail judges a connection that came as far as MAIL and no further: lost
// before the final reply (C11), or refused with "STARTTLS first" in clear
// (C12), in which case the host does want TLS and did not refuse the message.
func judgeMail(o Observed) Verdict {
	if o.Fault != NoFault {
		return Verdict{Row: "C11", Action: Next, Class: Unreachable, Reason: events.SessionLost}
	}
	return Verdict{Row: "C12", Action: Next, Class: Inconclusive, Reason: events.StartTLSTempfail}
}

// versionLow is row C1.
func (d Decision) versionLow() Verdict {
	v := d.noTLS("C1", Conclusive, events.TLSVersion)
	if f, ok := d.demand(MinimumVersion); ok {
		v.Failed = f
	}
	return v
}

// noTLS leaves a host whose TLS did not come about: a violation under a
// demand, a candidate for phase 2 without one.
func (d Decision) noTLS(row string, class Evidence, reason events.Reason) Verdict {
	if d.Opportunistic() {
		return Verdict{Row: row, Action: Next, Class: class, Reason: reason, ClearLater: true}
	}
	return d.violates(row, class, reason, Encryption)
}

// tampered leaves a host that somebody stands in front of; no plaintext to it
// in this pass, whoever asks.
func (d Decision) tampered(row string, reason events.Reason) Verdict {
	v := d.noTLS(row, Suspicious, reason)
	v.ClearLater = false
	return v
}

func (d Decision) violates(row string, class Evidence, reason events.Reason, r Requirement) Verdict {
	failed, _ := d.demand(r)
	return Verdict{Row: row, Action: Next, Class: class, Reason: reason, Failed: failed}
}

// compatOr asks for one more connection with the compat hello before v holds.
func (d Decision) compatOr(o Observed, v Verdict) Verdict {
	if o.Hello == FullHello || o.Hello == NoSNIHello {
		v.Action = RetryCompat
	}
	return v
}
