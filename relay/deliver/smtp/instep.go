package smtp

import (
	"io"
	"slices"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/deliver/smtp/wire"
)

// A host may say more than it was asked: a proxy that answers RCPT in place of
// its backend and passes on the backend's answer as well, a filter that comments.
// From then on every reply would be taken for the answer to the command after
// the one it answers, and the second 250 to RCPT for the answer to a message that
// was refused. So an answer to content that says yes counts only when it is known
// to be that, by one of two signs:
//
//   - Its fingerprint is one that the address has used for content before, and never
//     for MAIL or RCPT (peer.answers). This costs nothing.
//   - A list of keywords comes right after it when EHLO is asked (RFC 5321 §4.1.4
//     allows that). No other command is answered by a list. This costs a round
//     trip, on the first message to an address.
//
// A host that takes a message in so many words before it has seen it, and then says
// no, is past all telling.
//
// A no for good is made sure of by the list as well, and so is any no where envelope
// and content go in one flight: it may be a surplus answer to a command before it.
//
// What stays is a host that says one yes too many after 354, so late that all of the
// content is out, and then refuses it by hanging up.

// maxSurplus bounds the replies read that nobody asked for.
const maxSurplus = 20

// heard keeps the fingerprint of a yes to MAIL or RCPT.
func (t *Transaction) heard(rep wire.Reply) {
	w := rep.Fingerprint()
	if !slices.Contains(t.fingerprints, w) {
		t.fingerprints = append(t.fingerprints, w)
	}
}

// confirm sees to it that t.final answers the content. Where it may not, nothing
// that was heard counts: misstep.
func (t *Transaction) confirm(fingerprint uint64, flight bool) {
	yes := t.Final.Code >= 200 && t.Final.Code < 300
	switch {
	case t.Session.Broken && !yes: // it has hung up: there is nothing more to hear
		return
	case yes && t.known(fingerprint):
		if t.peer.Learned.Sub(t.began) < peer.ProvenFor/2 || t.chunked && t.peer.Chunks.Sub(t.began) < peer.ProvenFor/2 {
			t.proves(fingerprint)
		}
		return
	case t.Final.Code < 500 && !yes && !flight && !t.doubted() && !t.refusedForGood():
		return // it may come again, and be in step then
	}
	surplus, sure := t.sync()
	switch {
	case len(surplus) > 0:
		t.misstep(yes, surplus, sure)
	case yes && !sure && !t.doubted() && (flight || t.chunked && !t.proven() || t.peer.LearnedAt(t.began) || slices.Contains(t.fingerprints, fingerprint)):
		t.misstep(yes, nil, false) // it may answer something else, and does not say what
	case yes && sure:
		t.proves(fingerprint)
	}
}

// known reports whether a yes is worded as the address answers content, and nothing
// that it said to the envelope is.
func (t *Transaction) known(fingerprint uint64) bool {
	return !t.synced && !t.doubted() && t.peer.LearnedAt(t.began) && t.peer.Knows(fingerprint) && !slices.ContainsFunc(t.fingerprints, t.peer.Knows)
}

// assure sees to it, where no content was sent, that what was refused for good was
// meant: MAIL, DATA or a recipient.
func (t *Transaction) assure() {
	refused := t.MailRefusal.Code >= 500 || t.Final.Code >= 500 || t.refusedForGood()
	if !refused || t.Err != nil || t.Begun || t.Unclear || t.Session.Broken {
		return
	}
	if surplus, _ := t.sync(); len(surplus) > 0 {
		t.misstep(false, surplus, false)
	}
}

// refusedForGood reports whether a recipient was.
func (t *Transaction) refusedForGood() bool {
	return slices.ContainsFunc(t.Answers, func(said RcptAnswer) bool { return said.Standing == Refused && said.Reply.Code >= 500 })
}

// proves notes that the address has taken content, and answered in step.
func (t *Transaction) proves(fingerprint uint64) {
	t.Session.client.Peers.Change(t.Session.Target.Addr, func(p *peer.Traits, now time.Time) {
		p.Learn(fingerprint, t.fingerprints, now)
		if t.chunked {
			p.Chunks = now.Add(peer.ProvenFor)
		}
	})
}

// doubted reports whether the address has answered out of step lately.
func (t *Transaction) doubted() bool { return t.began.Before(t.peer.OutOfStep) }

// misstep voids a transaction whose replies were not in step. yes tells that one to
// the content, or what was taken for it, was a yes; sure that all was heard. If all
// that was said is yes, the message was taken all the same, whichever reply is whose.
// Otherwise nobody knows: it may have been, unless nothing said yes from the answer
// to the content on, or no content was sent.
//
// Where there is one recipient, it has only the answer to the content and some beside
// it: such a yes and a no are doubted once, like those within one reply. The second
// time the no counts, for good: a third copy would help nobody.
func (t *Transaction) misstep(yes bool, surplus []relay.Reply, sure bool) {
	t.Session.client.Peers.StepByStep(t.Session.Target.Addr)
	t.Session.Broken = true
	allYes := yes && sure && len(surplus) > 0 && t.MailRefusal.Code == 0
	for _, r := range surplus {
		allYes = allYes && r.Code < 300
		yes = yes || r.Code < 300
	}
	for _, said := range t.Answers {
		allYes = allYes && said.Standing == Taken
	}
	if allYes {
		return
	}
	if t.Ended && len(t.rcpts) == 1 && len(surplus) > 0 && t.Final.Code != 0 {
		if t.Final.Code/100 == 4 {
			return // it comes again as it is
		}
		t.Unclear, t.Hopeless = !t.mail.Doubted, t.mail.Doubted
		for _, r := range surplus {
			if r.Code >= 400 {
				t.Final = r
			}
		}
		return
	}
	t.Err, t.MailRefusal, t.Final = wire.ErrStep, relay.Reply{}, relay.Reply{}
	clear(t.Answers)
	t.untaken = !yes || !t.Begun
}

// sync asks for the list of keywords again and gives what the host says before
// it. sure tells that the list came, so that what was heard before is in step if
// nothing stood between. Where a host answers EHLO by anything else, or has no
// list, QUIT does the same, whose 221 ends the connection (RFC 5321 §4.1.1.10).
func (t *Transaction) sync() (surplus []relay.Reply, sure bool) {
	s := t.Session
	patience := min(wire.FinalWithin(s.Timeout), wire.SyncWithin)
	s.Bound(patience)
	byList := t.synced || s.Ext.List != 0 && !t.began.Before(t.peer.NoList)
	if !t.synced && !t.ask(!byList) { // else it was asked behind the content already
		return nil, false
	}
	quitting, own := !byList, false
	for range maxSurplus {
		rep, err := s.Read(patience)
		switch {
		case err != nil, rep.Code == 421:
			s.Broken = true
			t.closing(rep)
			if byList && !quitting && wire.IsTimeout(err) {
				t.withoutList()
			}
			if own && len(surplus) == 1 {
				return nil, true // it refuses a second EHLO, and hangs up
			}
			return surplus, false
		case quitting && rep.Code == 221:
			s.Broken = true
			if byList {
				t.withoutList()
				surplus = surplus[:len(surplus)-1] // the last of them was to EHLO
			}
			return surplus, true
		case !quitting && rep.Code == 250 && rep.Lines > 1 && rep.Fingerprint() == s.Ext.List:
			return surplus, true
		}
		surplus = append(surplus, rep.Export())
		// What may be its answer to our own question.
		own = own || byList && (rep.Lines > 1 || aboutVerb(rep.Code)) || !byList && rep.Positive()
		if !quitting {
			quitting = true
			t.ask(true) // if that fails, so will reading
		}
	}
	s.Broken = true
	return surplus, false
}

// withoutList notes an address that does not answer a second EHLO by its list.
func (t *Transaction) withoutList() {
	t.Session.client.Peers.Change(t.Session.Target.Addr, func(p *peer.Traits, now time.Time) { p.NoList = now.Add(peer.DoubtedFor) })
}

// ask says QUIT or EHLO.
func (t *Transaction) ask(quit bool) bool {
	s := t.Session
	if quit {
		s.Out = append(s.Out, "QUIT\r\n"...)
	} else {
		s.Out = s.appendEHLO(s.Out)
	}
	if s.Flush() != nil {
		s.Broken = true
		return false
	}
	return true
}

// surplus looks, before something is asked, whether the host has said more than
// it was. A 421 it may always say (RFC 5321 §3.8). An address that is known to be
// out of step is listened to until it is silent instead: what its replies amount
// to is made sure of at the end.
func (t *Transaction) surplus() bool {
	s := t.Session
	for range maxSurplus {
		if !s.Unread() && (!t.doubted() || !s.Pending()) {
			return false
		}
		rep, err := s.Read(s.Timeout)
		switch {
		case err != nil:
			t.Err = err
			return true
		case rep.Code == 421:
			t.closing(rep)
			t.Err = io.EOF
			return true
		case !t.doubted():
			t.misstep(false, nil, false)
			return true
		}
	}
	t.misstep(false, nil, false)
	return true
}
