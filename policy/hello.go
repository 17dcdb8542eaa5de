package policy

import "tlsrelay/events"

// ticketMayBeWhy reports whether a connection can have failed because it offered
// a session ticket, where v is the verdict on it otherwise: up to the answer to
// its first MAIL. A reply that refuses MAIL, and what the finished handshake
// showed, can be the ticket's doing only where the host did resume the session:
// the certificate is then as old as the ticket. Keywords and DNS (C9) never are.
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
// what it is called otherwise.
func (o Observed) failure(usual events.Reason) events.Reason {
	switch {
	case o.Stage != StageMail || o.Fault != NoFault:
		return usual
	case o.Code >= 500:
		return events.ReplyPerm
	}
	return events.ReplyTemp
}

// JudgeAddress makes one verdict of the verdicts on the connections to an address,
// one for each hello, in the order in which they were made: the last one. But an
// inconclusive or suspicious verdict before it stands, for the compat hello asks
// for less than the first one offered. That it is refused proves nothing alone,
// least of all that the version of the host is too low.
func JudgeAddress(tried []Verdict) Verdict {
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

// ProbesVersion reports whether an address is asked once more, which versions it
// has, after what its connections showed: the first hello and the compat hello
// both failed without a clear answer (rows B6, C2 and C3). Hosts that are too old
// for the floor close (aiosmtpd), send alert 0 (Courier) or alert 40 (GnuTLS)
// where RFC 8446 §6.2 has an alert of its own, 70. An alert 70 to the compat hello
// is no clear answer: that hello has an upper bound.
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

// JudgeProbe gives the verdict on an address after a connection with ProbeHello;
// stands is the one before it. A version below the floor: the host is too old. At
// or above it: the other failures were about something else, which may pass. A
// probe that fails as well changes nothing, unless its answer is clear.
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
		return d.verdict(rowC1, o, events.TLSVersion)
	}
	stands.Class = Inconclusive
	return stands
}
