package policy

import "tlsrelay/events"

// ticketMayBeWhy reports whether a connection can have failed because it offered
// a session ticket (row C8r), where v is the verdict on it otherwise: up to the
// answer to its first MAIL. A refusal of MAIL in words, and what the finished
// handshake showed, are the ticket's doing only where the host did resume the
// session: the certificate is then as old as the ticket. Keywords and DNS (C9)
// never are.
func (o Observed) ticketMayBeWhy(v Verdict) bool {
	resumed := o.TLS != nil && o.TLS.Resumed
	switch o.Stage {
	case StageHandshake, StageEHLOTLS:
		return o.Ticket
	case StageReady:
		return resumed && v.Row != "C9"
	case StageMail:
		return o.FirstMail && (resumed || o.Ticket && o.Fault != NoFault)
	}
	return false
}

// failure names what went wrong on a connection whose ticket may be why; usual is
// what it would be without.
func (o Observed) failure(usual events.Reason) events.Reason {
	switch {
	case o.Stage != StageMail || o.Fault != NoFault:
		return usual
	case o.Code >= 500:
		return events.ReplyPerm
	}
	return events.ReplyTemp
}

// Settle gives an address the verdict of its connections, in the order in which
// they were made, with a hello each: that of the last. An inconclusive or
// suspicious one before it stands, though: the compat hello asks for less than
// the first one offered, so that its refusal alone proves nothing, least of all
// that the host's version is too low.
func Settle(tried []Verdict) Verdict {
	v := tried[len(tried)-1]
	if v.Row == "C1" {
		v = tried[0]
	}
	for _, t := range tried {
		if v.Class != Suspicious && (t.Class == Inconclusive || t.Class == Suspicious) {
			v = t
			break
		}
	}
	v.Action = Next
	return v
}

// ProbesVersion reports whether an address is to be asked once more which
// versions it has, after what its connections showed: the first hello and the
// compat one both failed without a clear word (rows B6, C2 and C3). Hosts that
// are too old for the floor close (aiosmtpd), send alert 0 (Courier) or alert 40
// (GnuTLS) where RFC 8446 §6.2 has an alert of its own, 70. What the compat hello
// is told of its version is no clear word: it has an upper bound.
func (d Decision) ProbesVersion(shown []Observed) bool {
	if d.floor <= TLS10 {
		return false
	}
	first, compat := false, false
	for _, o := range shown {
		v := d.judge(o)
		unclear := v.Row == "B6" || v.Row == "C2" || v.Row == "C3" || v.Row == "C1" && o.Hello == CompatHello
		if o.Stage != StageHandshake || v.Class == Suspicious || !unclear {
			return false
		}
		first, compat = first || o.Hello == FullHello, compat || o.Hello == CompatHello
	}
	return first && compat
}

// JudgeProbe gives the verdict on an address whose other hellos came to stands
// after a connection with ProbeHello: below the floor the host is too old, and at
// or above it the other failures were about something else, which may pass. A
// probe that fails as well adds nothing, unless it has the clear word.
func (d Decision) JudgeProbe(o Observed, stands Verdict) Verdict {
	if o.Stage != StageHandshake {
		return stands
	}
	if o.TLS == nil {
		if v := d.judge(o); v.Row == "C1" || v.Class == Suspicious {
			return v
		}
		return stands
	}
	if o.TLS.Version < d.floor {
		return d.versionLow()
	}
	stands.Class = Inconclusive
	return stands
}
