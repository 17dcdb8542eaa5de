package smtp

import (
	"io"
	"slices"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/deliver/smtp/wire"
)

// Some hosts send more replies than they got commands: a proxy answers RCPT itself and
// passes on its backend's answer as well, a filter adds a comment. From then on every
// reply would be taken for the answer to the next command, and a second 250 to RCPT for
// the answer to a message that the host refused. So a positive reply to the content
// counts only if one of two signs shows that it answers the content:
//
//   - The address has answered content with this fingerprint before, and never MAIL or
//     RCPT (peer.Traits.Answers). This costs nothing.
//   - The client sends EHLO again (RFC 5321 §4.1.4 allows that), and the list of keywords
//     comes right after the reply. No other command is answered by a list. This costs
//     a round trip, on the first message to an address.
//
// A permanent refusal is confirmed by the list as well. So is any refusal where envelope
// and content go in one flight, for it may answer a command before the content.
//
// Two cases cannot be told from a host in step: one that accepts the message in its usual
// text before it has seen it, and then refuses it; and one that sends a 250 too many after
// 354, when all of the content is out, and then refuses the message by hanging up.

// maxSurplus bounds the replies read that answer no command.
const maxSurplus = 20

// heard keeps the fingerprint of a positive reply to MAIL or RCPT.
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
		return // temporary: the next attempt may be in step
	}
	surplus, sure := t.sync()
	switch {
	case len(surplus) > 0:
		t.misstep(yes, surplus, sure)
	case yes && !sure && !t.doubted() && (flight || t.chunked && !t.proven() || t.peer.LearnedAt(t.began) || slices.Contains(t.fingerprints, fingerprint)):
		t.misstep(yes, nil, false) // nothing shows what it answers
	case yes && sure:
		t.proves(fingerprint)
	}
}

// known reports whether the address has answered content with this fingerprint before,
// and has answered none of the envelope so.
func (t *Transaction) known(fingerprint uint64) bool {
	return !t.synced && !t.doubted() && t.peer.LearnedAt(t.began) && t.peer.Knows(fingerprint) && !slices.ContainsFunc(t.fingerprints, t.peer.Knows)
}

// assure confirms a permanent refusal of MAIL, DATA or a recipient where no content was
// sent.
func (t *Transaction) assure() {
	refused := t.MailRefusal.Code >= 500 || t.Final.Code >= 500 || t.refusedForGood()
	if !refused || t.Err != nil || t.Begun || t.Unclear || t.Session.Broken {
		return
	}
	if surplus, _ := t.sync(); len(surplus) > 0 {
		t.misstep(false, surplus, false)
	}
}

// refusedForGood reports whether a recipient was refused permanently.
func (t *Transaction) refusedForGood() bool {
	return slices.ContainsFunc(t.Answers, func(said RcptAnswer) bool { return said.Standing == Refused && said.Reply.Code >= 500 })
}

// proves notes that the address has accepted content, and answered in step.
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

// misstep voids a transaction whose replies were not in step. yes tells that what was
// taken for the reply to the content was positive; sure, that all replies were read. If
// all of them are positive the host has accepted the message, whichever reply answers
// what. Otherwise it may have accepted it, unless no reply from the one to the content on
// is positive, or no content was sent.
//
// With one recipient there are only the reply to the content and the surplus. If they
// disagree the attempt ends in doubt, as it does when one reply disagrees with itself. The
// second time the refusal counts, permanently: a third copy would help nobody.
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
			return // a temporary refusal stands
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

// sync sends EHLO again and gives the replies that come before the list of keywords. sure
// tells that the list came: if nothing came before it, the replies until then were in
// step. Where a host answers EHLO by anything else, or has no list, sync sends QUIT; the
// 221 shows the same and ends the connection (RFC 5321 §4.1.1.10).
func (t *Transaction) sync() (surplus []relay.Reply, sure bool) {
	s := t.Session
	patience := min(wire.FinalWithin(s.Timeout), wire.SyncWithin)
	s.Bound(patience)
	byList := t.synced || s.Ext.List != 0 && !t.began.Before(t.peer.NoList)
	if !t.synced && !t.ask(!byList) { // if synced, EHLO went out behind the content
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

// ask sends QUIT or EHLO.
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

// surplus looks, before a command goes out, whether a reply is there that answers none.
// A host may always send 421 (RFC 5321 §3.8). What an address says that is known to be out
// of step is read and left out: confirm decides at the end.
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
