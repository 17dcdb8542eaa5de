package deliver

import (
	"io"
	"slices"
	"time"

	"tlsrelay/relay"
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
func (t *transaction) heard(rep reply) {
	w := rep.fingerprint()
	if !slices.Contains(t.fingerprints, w) {
		t.fingerprints = append(t.fingerprints, w)
	}
}

// confirm sees to it that t.final answers the content. Where it may not, nothing
// that was heard counts: misstep.
func (t *transaction) confirm(fingerprint uint64, flight bool) {
	yes := t.final.Code >= 200 && t.final.Code < 300
	switch {
	case t.session.broken && !yes: // it has hung up: there is nothing more to hear
		return
	case yes && t.known(fingerprint):
		if t.peer.learned.Sub(t.began) < provenFor/2 || t.chunked && t.peer.chunks.Sub(t.began) < provenFor/2 {
			t.proves(fingerprint)
		}
		return
	case t.final.Code < 500 && !yes && !flight && !t.doubted() && !t.refusedForGood():
		return // it may come again, and be in step then
	}
	surplus, sure := t.sync()
	switch {
	case len(surplus) > 0:
		t.misstep(yes, surplus, sure)
	case yes && !sure && !t.doubted() && (flight || t.chunked && !t.proven() || t.peer.learnedAt(t.began) || slices.Contains(t.fingerprints, fingerprint)):
		t.misstep(yes, nil, false) // it may answer something else, and does not say what
	case yes && sure:
		t.proves(fingerprint)
	}
}

// known reports whether a yes is worded as the address answers content, and nothing
// that it said to the envelope is.
func (t *transaction) known(fingerprint uint64) bool {
	return !t.synced && !t.doubted() && t.peer.learnedAt(t.began) && t.peer.knows(fingerprint) && !slices.ContainsFunc(t.fingerprints, t.peer.knows)
}

// assure sees to it, where no content was sent, that what was refused for good was
// meant: MAIL, DATA or a recipient.
func (t *transaction) assure() {
	refused := t.mailRefusal.Code >= 500 || t.final.Code >= 500 || t.refusedForGood()
	if !refused || t.err != nil || t.begun || t.unclear || t.session.broken {
		return
	}
	if surplus, _ := t.sync(); len(surplus) > 0 {
		t.misstep(false, surplus, false)
	}
}

// refusedForGood reports whether a recipient was.
func (t *transaction) refusedForGood() bool {
	return slices.ContainsFunc(t.answers, func(said rcptAnswer) bool { return said.standing == refused && said.reply.Code >= 500 })
}

// proves notes that the address has taken content, and answered in step.
func (t *transaction) proves(fingerprint uint64) {
	t.session.client.peers.change(t.session.key.addr, func(p *peer, now time.Time) {
		p.learn(fingerprint, t.fingerprints, now)
		if t.chunked {
			p.chunks = now.Add(provenFor)
		}
	})
}

// doubted reports whether the address has answered out of step lately.
func (t *transaction) doubted() bool { return t.began.Before(t.peer.outOfStep) }

// misstep voids a transaction whose replies were not in step. yes tells that one to
// the content, or what was taken for it, was a yes; sure that all was heard. If all
// that was said is yes, the message was taken all the same, whichever reply is whose.
// Otherwise nobody knows: it may have been, unless nothing said yes from the answer
// to the content on, or no content was sent.
//
// Where there is one recipient, it has only the answer to the content and some beside
// it: such a yes and a no are doubted once, like those within one reply. The second
// time the no counts, for good: a third copy would help nobody.
func (t *transaction) misstep(yes bool, surplus []relay.Reply, sure bool) {
	t.session.client.peers.stepByStep(t.session.key.addr)
	t.session.broken = true
	allYes := yes && sure && len(surplus) > 0 && t.mailRefusal.Code == 0
	for _, r := range surplus {
		allYes = allYes && r.Code < 300
		yes = yes || r.Code < 300
	}
	for _, said := range t.answers {
		allYes = allYes && said.standing == taken
	}
	if allYes {
		return
	}
	if t.ended && len(t.rcpts) == 1 && len(surplus) > 0 && t.final.Code != 0 {
		if t.final.Code/100 == 4 {
			return // it comes again as it is
		}
		t.unclear, t.hopeless = !t.mail.doubted, t.mail.doubted
		for _, r := range surplus {
			if r.Code >= 400 {
				t.final = r
			}
		}
		return
	}
	t.err, t.mailRefusal, t.final = errStep, relay.Reply{}, relay.Reply{}
	clear(t.answers)
	t.untaken = !yes || !t.begun
}

// sync asks for the list of keywords again and gives what the host says before
// it. sure tells that the list came, so that what was heard before is in step if
// nothing stood between. Where a host answers EHLO by anything else, or has no
// list, QUIT does the same, whose 221 ends the connection (RFC 5321 §4.1.1.10).
func (t *transaction) sync() (surplus []relay.Reply, sure bool) {
	s := t.session
	patience := min(finalWithin(s.timeout), syncWithin)
	s.bound(patience)
	byList := t.synced || s.ext.list != 0 && !t.began.Before(t.peer.noList)
	if !t.synced && !t.ask(!byList) { // else it was asked behind the content already
		return nil, false
	}
	quitting, own := !byList, false
	for range maxSurplus {
		rep, err := s.read(patience)
		switch {
		case err != nil, rep.code == 421:
			s.broken = true
			t.closing(rep)
			if byList && !quitting && isTimeout(err) {
				t.withoutList()
			}
			if own && len(surplus) == 1 {
				return nil, true // it refuses a second EHLO, and hangs up
			}
			return surplus, false
		case quitting && rep.code == 221:
			s.broken = true
			if byList {
				t.withoutList()
				surplus = surplus[:len(surplus)-1] // the last of them was to EHLO
			}
			return surplus, true
		case !quitting && rep.code == 250 && rep.lines > 1 && rep.fingerprint() == s.ext.list:
			return surplus, true
		}
		surplus = append(surplus, rep.export())
		// What may be its answer to our own question.
		own = own || byList && (rep.lines > 1 || aboutVerb(rep.code)) || !byList && rep.positive()
		if !quitting {
			quitting = true
			t.ask(true) // if that fails, so will reading
		}
	}
	s.broken = true
	return surplus, false
}

// withoutList notes an address that does not answer a second EHLO by its list.
func (t *transaction) withoutList() {
	t.session.client.peers.change(t.session.key.addr, func(p *peer, now time.Time) { p.noList = now.Add(doubtedFor) })
}

// ask says QUIT or EHLO.
func (t *transaction) ask(quit bool) bool {
	s := t.session
	if quit {
		s.out = append(s.out, "QUIT\r\n"...)
	} else {
		s.out = s.appendEHLO(s.out)
	}
	if s.flush() != nil {
		s.broken = true
		return false
	}
	return true
}

// surplus looks, before something is asked, whether the host has said more than
// it was. A 421 it may always say (RFC 5321 §3.8). An address that is known to be
// out of step is listened to until it is silent instead: what its replies amount
// to is made sure of at the end.
func (t *transaction) surplus() bool {
	s := t.session
	for range maxSurplus {
		if !s.unread() && (!t.doubted() || !s.pending()) {
			return false
		}
		rep, err := s.read(s.timeout)
		switch {
		case err != nil:
			t.err = err
			return true
		case rep.code == 421:
			t.closing(rep)
			t.err = io.EOF
			return true
		case !t.doubted():
			t.misstep(false, nil, false)
			return true
		}
	}
	t.misstep(false, nil, false)
	return true
}
