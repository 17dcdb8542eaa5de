// From a 250 to the block event, 6 of 10: this file finds the row of the table for
// what was seen, and what it means for the demands. Next: policy/conclude.go.

package policy

import "tlsrelay/events"

// Evidence is what a host told us of its ability to meet the demands.
type Evidence string

// The five classes of evidence. The word before a colon is what the table in the README
// and in DECISIONS.md has for the class.
const (
	OK           Evidence = "ok"
	Conclusive   Evidence = "conclusive"   // violates: we spoke to the host, and it cannot
	Inconclusive Evidence = "inconclusive" // unclear: TLS should have worked and did not
	Unreachable  Evidence = "unreachable"  // next host: no useful conversation
	Suspicious   Evidence = "suspicious"   // suspicious: signs of tampering
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

// Verdict is the answer to one observation, with its reason. JudgeAddress makes one of the
// verdicts on the connections to an address, Merge one of those on a host's addresses,
// and Conclude a ruling of those on all hosts.
type Verdict struct {
	Row    string        `json:"row"` // Row.ID
	Action Action        `json:"action"`
	Class  Evidence      `json:"class"`
	Reason events.Reason `json:"reason,omitempty"`
	// ClearLater marks a host that may be tried again in clear, in phase 2 of an
	// attempt (relay/deliver/attempt.go). Only opportunistic mail has one.
	ClearLater bool `json:"clear_later,omitempty"`
	// Failed is the demand that was not met; zero when none was concerned.
	Failed Demand `json:"failed,omitzero"`
	// Note records something seen that did not decide: a masked STARTTLS or a bad
	// certificate that nobody asked about.
	Note events.Reason `json:"note,omitempty"`
}

// Judge gives the verdict on one observation. It finds the row of the decision table
// (rows.go) by the stage at which the connection ended, and gives the answer that the row
// has for the demands in d. A connection that its session ticket may have spoiled proves
// nothing, so it is tried again without one.
func (d Decision) Judge(o Observed) Verdict {
	v := d.judge(o)
	if v.Action == Proceed || v.Class == Suspicious || !o.ticketMayBeWhy(v) {
		return v
	}
	return d.verdict(rowTicket, o, o.failure(v.Reason))
}

// verdict gives the answer of a row for the demands in d, with the reason. Where the
// answer is OK, the reason is a note only.
func (d Decision) verdict(row int, o Observed, reason events.Reason) Verdict {
	r := &rows[row]
	c := &r.cells[d.column()]
	v := Verdict{Row: r.ID, Action: Next, Class: c.Class, Reason: reason, ClearLater: c.Mail == ClearLater}
	if c.Class == OK {
		v.Action, v.Reason, v.Note = Proceed, events.NoReason, reason
	}
	if c.Again != "" && o.mayTry(c.Again) {
		v.Action = c.Again
	}
	if r.fails != "" && c.Class != OK {
		v.Failed = d.failed(r.fails)
	}
	return v
}

// column gives the column of the decision table: O, T or V.
func (d Demands) column() column {
	switch {
	case d.Opportunistic():
		return columnO
	case d.validCert:
		return columnV
	}
	return columnT
}

// mayTry reports whether the hello of a connection leaves a way to try again.
func (o Observed) mayTry(a Action) bool {
	switch a {
	case RetryCompat:
		return o.Hello == FullHello || o.Hello == NoSNIHello
	case RetryNoSNI:
		return o.Hello != NoSNIHello
	}
	return true
}

func (d Decision) judge(o Observed) Verdict {
	switch o.Stage {
	case StageConnect:
		return d.verdict(rowA1, o, events.ConnectFail)
	case StageGreeting:
		return d.judgeGreeting(o)
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
		return d.judgeMail(o)
	}
	// A stage that nobody knows: leave the host, promise nothing.
	return d.verdict(rowA1, o, events.Internal)
}

func (d Decision) judgeGreeting(o Observed) Verdict {
	row := rowA1
	switch {
	case o.Code >= 500:
		row = rowA3
	case o.Code >= 400:
		row = rowA2
	}
	return d.verdict(row, o, events.GreetingFail)
}

// judgeEHLO judges a first EHLO that was not answered 250, or the HELO after it.
func (d Decision) judgeEHLO(o Observed) Verdict {
	switch {
	case o.Mixed:
		return d.verdict(rowEHLOMixed, o, events.EHLOFail)
	case refusesName(o.Code):
		return d.verdict(rowName, o, events.NameRefused)
	case lacksVerb(o.Code) && !o.HELO:
		return d.verdict(rowA5, o, events.EHLOUnsupported)
	case o.Code >= 500:
		return d.verdict(rowA6, o, events.EHLOFail)
	}
	return d.verdict(rowA7, o, events.EHLOFail)
}

// lacksVerb reports a reply that says that the command is not known.
func lacksVerb(code int) bool { return code == 500 || code == 502 }

// refusesName reports a reply to EHLO or HELO that is about the argument, which is
// our own name (RFC 5321 §4.2.2).
func refusesName(code int) bool { return code == 501 || code == 504 }

// judgeStartTLS judges a STARTTLS command that did not end in a clean 220.
func (d Decision) judgeStartTLS(o Observed) Verdict {
	switch {
	case o.Injected:
		return d.verdict(rowInjected, o, events.StartTLSInjection)
	case o.Mixed:
		return d.verdict(rowB4, o, events.StartTLSTempfail)
	case o.Code == 421:
		return d.verdict(rowB2, o, events.StartTLSTempfail)
	case o.Code >= 500:
		return d.verdict(rowB3, o, events.StartTLSRefused)
	case o.Code >= 400:
		return d.verdict(rowB1, o, events.StartTLSTempfail)
	case o.Code != 0, o.Fault == Garbage:
		return d.verdict(rowB4, o, events.StartTLSTempfail)
	case o.Fault == Timeout:
		return d.verdict(rowSilentEarly, o, events.TLSTimeout)
	}
	return d.verdict(rowClosedEarly, o, events.TLSClosed)
}

// judgeHandshake judges a handshake that failed.
func (d Decision) judgeHandshake(o Observed) Verdict {
	switch o.Fault {
	case Closed:
		return d.verdict(rowClosed, o, events.TLSClosed)
	case Timeout:
		return d.verdict(rowSilent, o, events.TLSTimeout)
	case NotTLS:
		return d.verdict(rowB8, o, events.TLSNotTLS)
	case VersionLow:
		return d.verdict(rowC1, o, events.TLSVersion)
	case Alert:
		return d.judgeAlert(o)
	case ClientCert:
		return d.verdict(rowC5, o, events.ClientCertRequired)
	case LocalLimit:
		return d.verdict(rowC6, o, events.TLSLocalLimit)
	case Downgrade:
		return d.verdict(rowDowngrade, o, events.TLSDowngrade)
	}
	return d.verdict(rowC3, o, events.TLSHandshake)
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
		return d.verdict(rowC1, o, events.TLSVersion)
	case alertHandshakeFailure, alertInsufficientSecurity:
		return d.verdict(rowC2, o, events.TLSHandshake)
	case alertUnrecognizedName:
		return d.verdict(rowC4, o, events.TLSHandshake)
	case alertCertificateRequired:
		return d.verdict(rowC5, o, events.ClientCertRequired)
	}
	return d.verdict(rowC3, o, events.TLSHandshake)
}

// judgeSecondEHLO judges an EHLO inside TLS that failed.
func (d Decision) judgeSecondEHLO(o Observed) Verdict {
	if o.Fault == ClientCert || o.Fault == Alert && o.Alert == alertCertificateRequired {
		return d.verdict(rowC5, o, events.ClientCertRequired)
	}
	if refusesName(o.Code) && !o.Mixed {
		return d.verdict(rowName, o, events.NameRefused)
	}
	reason := events.TLSClosed
	switch {
	case o.Code != 0:
		reason = events.EHLOFail
	case o.Fault == Timeout:
		reason = events.TLSTimeout
	}
	return d.verdict(rowC8, o, reason)
}

// judgeReady judges a connection that could carry MAIL: in clear, or with a
// finished handshake behind it. What is demanded comes first. A bad certificate that
// nobody asked about comes last: its row (C7) then lets the mail go, with a note.
func (d Decision) judgeReady(o Observed) Verdict {
	if o.TLS == nil {
		return d.judgeClear(o)
	}
	s := o.TLS
	if s.Version < d.floor {
		return d.verdict(rowC1, o, events.TLSVersion)
	}
	if _, wants := d.demand(ForwardSecret); wants && !s.ForwardSecret {
		return d.verdict(rowForward, o, events.ForwardSecrecy)
	}
	if d.validCert && !s.Cert.Valid() {
		return d.verdict(rowC7, o, s.Cert.Faults[0])
	}
	if _, wants := d.demand(HostKeyword); wants && !o.RequireTLS {
		return d.verdict(rowKeyword, o, events.RequireTLSUnsupported)
	}
	if d.NeedsAuthenticMX() && d.MX != MXDNSSEC {
		return d.verdict(rowMX, o, events.MXUnauthenticated)
	}
	if !s.Cert.Valid() {
		return d.verdict(rowC7, o, s.Cert.Faults[0])
	}
	return d.verdict(rowENC, o, events.NoReason)
}

func (d Decision) judgeClear(o Observed) Verdict {
	if o.StartTLS == Masked {
		return d.verdict(rowA8, o, events.StartTLSMasked)
	}
	v := d.verdict(rowA4, o, events.StartTLSNotOffered)
	v.Note = events.NoReason // a delivery in clear shows by itself that there was no TLS
	return v
}

// judgeMail judges a connection that came as far as MAIL and no further: it was
// lost before the final reply, or MAIL was refused in clear with "STARTTLS first".
func (d Decision) judgeMail(o Observed) Verdict {
	if o.Fault != NoFault {
		return d.verdict(rowC11, o, events.SessionLost)
	}
	return d.verdict(rowC12, o, events.StartTLSTempfail)
}
