package deliver

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tlsrelay/relay"
)

// errChunks is the error of a host that refuses BDAT though it lists CHUNKING.
var errChunks = fmt.Errorf("%w: BDAT refused", errReply)

// oneFlight is the largest body that goes out together with MAIL and RCPT,
// before either is answered. Beyond it a refusal would waste more than a
// round trip saves.
const oneFlight = 256 << 10

// standing is what a host said of one recipient.
type standing string

const (
	unasked standing = ""         // not answered, or no room in this transaction
	taken   standing = "taken"    // RCPT accepted
	refused standing = "refused"  // RCPT refused
	unclear standing = "unclear"  // RCPT answered by yes and no at once
	tooMany standing = "too_many" // try again in the next transaction
)

type rcptAnswer struct {
	standing standing
	reply    relay.Reply // of a refusal
}

// transaction is one transaction: what was sent, what was answered, how far it
// came.
type transaction struct {
	session *session
	mail    *mailObject
	rcpts   []*relay.Recipient
	peer    peer      // what is known of the address
	began   time.Time // when
	// reused tells that the session came out of the pool, and this is the first
	// transaction since.
	reused bool

	mailRefusal  relay.Reply  // refusal of MAIL; Code 0: none
	mailed       bool         // MAIL was answered
	unreset      bool         // RSET was refused
	answers      []rcptAnswer // one per recipient
	final        relay.Reply  // to the message, or to DATA where that was refused
	unclear      bool         // mail or final says both yes and no, and is believed in neither
	hopeless     bool         // final is a no beside a yes, and so it was the attempt before
	chunked      bool         // the content goes by BDAT
	begun        bool         // content was sent
	ended        bool         // all of the message was sent
	err          error        // the conversation broke off
	fingerprints []uint64     // of the answers that took MAIL and RCPT
	synced       bool         // EHLO was asked in the same flight
	// untaken tells that the message cannot have been taken though err is set;
	// unchunked that it was not, for the host does not do what CHUNKING promises.
	untaken, unchunked bool
}

// transact runs one transaction over the session.
func (s *session) transact(m *mailObject, rcpts []*relay.Recipient) *transaction {
	now := time.Now()
	t := &transaction{session: s, mail: m, rcpts: rcpts, answers: make([]rcptAnswer, len(rcpts)), began: now, peer: s.peer(), reused: s.reused}
	s.reused = false
	s.begin(transactionWithin(s.timeout, m.body.Size()))
	s.mails++
	s.limit = t.peer.messages(now)
	if s.unread() && !t.doubted() {
		t.unasked()
	} else {
		t.run()
	}
	s.finish()
	if t.err != nil {
		s.broken = true
		if isClosed(t.err) && !byUs(t.err) && !t.mailed && !s.hungUp && !s.cold && s.carried > 0 {
			s.client.peers.hungUp(s.key.addr)
		}
	}
	s.cold = false
	if t.unreset {
		s.limit = s.mails // it is not kept
	}
	s.count(t.final.Code/100 == 2 && !t.unclear)
	return t
}

// unasked reads what the host said before it was asked: a 421 is as good as one to
// MAIL, and after anything else it is out of step, as in command.
func (t *transaction) unasked() {
	rep, err := t.session.read(t.session.timeout)
	switch {
	case err != nil:
		t.err = err
	case rep.code != 421:
		t.misstep(false, nil, false)
	default:
		t.mailRefusal, t.mailed = rep.export(), true
		t.closing(rep)
	}
}

func (t *transaction) run() {
	reset := t.session.unclean
	t.session.unclean = true
	switch {
	case t.mayFly(reset):
		t.inOneFlight()
	case t.session.ext.pipelining && !t.doubted():
		t.pipelined(reset)
	default:
		t.stepwise(reset)
	}
	if t.final.Code >= 200 && t.final.Code < 300 {
		t.session.unclean = false
	}
	t.assure()
}

// mayFly reports whether envelope and content may go in one flight. That is for
// an address that has shown how it answers content, and that it takes BDAT; for
// a session that has not just failed, and is not likely to be gone; and for
// content that means nothing to a host that takes it for commands because it
// refused the recipients.
func (t *transaction) mayFly(reset bool) bool {
	s, p := t.session, &t.peer
	return s.ext.pipelining && s.ext.chunking && !reset && !s.cold &&
		t.began.Before(p.chunks) && p.learnedAt(t.began) && (len(p.answers) > 0 || s.ext.list != 0 && !t.began.Before(p.noList)) &&
		!t.doubted() &&
		t.mail.body.Size() <= oneFlight && !t.mail.namesRecipients()
}

// envelope appends RSET where needed, MAIL and RCPT.
func (t *transaction) envelope(reset bool) {
	s := t.session
	if reset {
		s.out = append(s.out, "RSET\r\n"...)
	}
	s.out = s.ext.appendMail(s.out, t.mail.message, t.mail.body.Size(), t.utf8())
	for _, r := range t.rcpts {
		s.out = s.ext.appendRcpt(s.out, r)
	}
}

// utf8 reports whether the transaction is one of RFC 6531.
func (t *transaction) utf8() bool {
	if !t.session.ext.utf8 {
		return false
	}
	if t.mail.message.SMTPUTF8 || t.mail.message.From.NeedsUTF8() {
		return true
	}
	for _, r := range t.rcpts {
		if r.Address.NeedsUTF8() {
			return true
		}
	}
	return false
}

// inOneFlight sends envelope and message at once (RFC 3030 §4.2): one round
// trip. A host that takes no recipient refuses the chunk as well, having
// read it. Where the answer to content is worded like all others, EHLO behind it
// tells which it is.
func (t *transaction) inOneFlight() {
	t.envelope(false)
	t.bdat(true)
	w := content{c: t.session.conn, gate: t.mail.gate, gather: len(t.peer.answers) == 0}
	sent := w.send(t.mail.body)
	if sent == nil && w.gather {
		t.synced = true
		t.session.out = t.session.appendEHLO(t.session.out)
		sent = t.session.flush()
	}
	t.begun, t.ended = true, sent == nil
	if t.hear(sent, false) {
		t.hearFinal(sent, true)
	}
}

// pipelined sends the envelope in one go, and the message when somebody is
// to have it (RFC 2920 §3.1).
func (t *transaction) pipelined(reset bool) {
	t.envelope(reset)
	chunks := t.byChunks()
	if !chunks {
		t.session.out = append(t.session.out, "DATA\r\n"...)
	}
	sent := t.session.flush()
	if !t.hear(sent, reset) {
		return
	}
	if chunks {
		if t.anyTaken() && !t.surplus() {
			t.chunk()
		}
		return
	}
	rep, ok := t.reply(sent)
	if !ok {
		return
	}
	t.afterData(rep)
}

// afterData goes on after the answer to DATA.
func (t *transaction) afterData(rep reply) {
	switch {
	case rep.code == 354 && t.anyTaken():
		if !t.surplus() {
			t.message(true)
		}
	case rep.code == 354:
		// Nobody is to have it, yet the host waits for it (RFC 2920 §3.1): an
		// empty message ends the transaction, whatever it is answered.
		t.session.out = append(t.session.out, ".\r\n"...)
		if err := t.session.flush(); err != nil {
			t.session.broken = true
		} else if _, err := t.session.read(t.session.timeout); err != nil {
			t.session.broken = true
		}
	case rep.code < 400:
		t.misstep(false, nil, false)
	default:
		t.closing(rep)
		t.final = t.export(rep)
	}
}

// stepwise waits for every answer: for a host without PIPELINING, and for one
// that has answered out of step.
func (t *transaction) stepwise(reset bool) {
	s := t.session
	if reset && !t.step(func() { s.out = append(s.out, "RSET\r\n"...) }, t.heardReset) {
		return
	}
	if !t.step(func() { s.out = s.ext.appendMail(s.out, t.mail.message, t.mail.body.Size(), t.utf8()) }, t.heardMail) {
		return
	}
	for i, r := range t.rcpts {
		if !t.step(func() { s.out = s.ext.appendRcpt(s.out, r) }, func(rep reply) bool { return t.heardRcpt(i, rep) }) {
			return
		}
	}
	switch {
	case !t.anyTaken():
	case t.session.hungUp:
		t.err = io.EOF
	case t.surplus():
	case t.byChunks():
		t.chunk()
	default:
		t.step(func() { s.out = append(s.out, "DATA\r\n"...) }, t.heardData)
	}
}

// heardData goes on after the answer to DATA, which is like no other where it is a
// yes: what an address that is out of step says before it is about something else.
func (t *transaction) heardData(rep reply) bool {
	for n := 0; rep.positive() && t.doubted() && n < maxSurplus; n++ {
		var ok bool
		if rep, ok = t.reply(nil); !ok {
			t.untaken = true
			return false
		}
	}
	t.afterData(rep)
	return true
}

func (t *transaction) step(command func(), heard func(reply) bool) bool {
	if t.session.hungUp {
		t.err = io.EOF
	}
	if t.err != nil || t.surplus() {
		return false
	}
	command()
	rep, ok := t.reply(t.session.flush())
	return ok && heard(rep)
}

// message sends the body after an accepted envelope.
func (t *transaction) message(stuff bool) {
	w := content{c: t.session.conn, gate: t.mail.gate, stuff: stuff, watch: true}
	t.begun = true
	sent := w.send(t.mail.body)
	if errors.Is(sent, errEarly) {
		t.session.broken = true // in the middle of the message
		if w.early.code < 400 || w.surplus() {
			t.misstep(false, nil, false)
			return
		}
		t.final = t.export(w.early)
		return
	}
	t.ended = sent == nil
	t.hearFinal(sent, false)
}

// reply reads the next reply. sent is how the sending went: after a failure
// only what the host said before it can still be heard.
func (t *transaction) reply(sent error) (rep reply, ok bool) {
	return t.replyWithin(t.session.timeout, sent)
}

// replyWithin is reply with a time of its own.
func (t *transaction) replyWithin(d time.Duration, sent error) (rep reply, ok bool) {
	switch {
	case sent == nil:
		rep, t.err = t.session.read(d)
	case isOwn(sent), byUs(sent):
		t.err = sent // the host waits for the rest; there is nothing to hear
	default:
		rep, t.err = t.session.lastReply(sent)
	}
	t.session.broken = t.session.broken || sent != nil
	return rep, t.err == nil
}

// hear reads the answers to the envelope. It goes on after a refusal of MAIL,
// for every command that was sent is answered.
func (t *transaction) hear(sent error, reset bool) bool {
	if reset {
		if rep, ok := t.reply(sent); !ok || !t.heardReset(rep) {
			return false
		}
	}
	rep, ok := t.reply(sent)
	if !ok {
		return false
	}
	t.heardMail(rep)
	for i := range t.rcpts {
		if rep, ok = t.reply(sent); !ok {
			return false
		}
		t.heardRcpt(i, rep)
	}
	return true
}

// heardReset takes in the answer to RSET. A host that refuses it takes MAIL all
// the same, or says no to that as well; only one that leaves does not.
func (t *transaction) heardReset(rep reply) bool {
	t.closing(rep)
	t.unreset = !rep.positive()
	if rep.code == 421 {
		t.err, t.untaken = io.EOF, true
		return false
	}
	return true
}

func (t *transaction) heardMail(rep reply) bool {
	t.mailed = true
	if !rep.positive() || t.doubtful(rep) {
		t.mailRefusal = t.export(rep)
		t.closing(rep)
		return false
	}
	t.heard(rep)
	return true
}

func (t *transaction) heardRcpt(i int, rep reply) bool {
	said := &t.answers[i]
	switch {
	case t.mailRefusal.Code != 0: // "503 MAIL first" says nothing about the recipient
	case t.doubtful(rep):
		said.standing, said.reply = unclear, rep.export()
	case rep.positive():
		said.standing = taken
		t.heard(rep)
	default:
		said.standing, said.reply = refused, rep.export()
		if isTooMany(said.reply, t.anyTaken()) {
			said.standing = tooMany
		}
		t.closing(rep)
	}
	return true
}

// doubtful reports whether a reply says yes in one line and no in another. That
// may be a slip the first time; of the same message, the last line counts the
// second time.
func (t *transaction) doubtful(rep reply) bool { return rep.mixed && !t.mail.doubted }

// export makes the reply that is kept, and notes one that is not believed.
func (t *transaction) export(rep reply) relay.Reply {
	t.unclear = t.unclear || t.doubtful(rep)
	return rep.export()
}

// hearFinal reads the answer to the whole message, for which RFC 5321
// §4.5.3.2.6 grants twice the time. flight tells that it was sent together with
// the envelope.
func (t *transaction) hearFinal(sent error, flight bool) {
	rep, ok := t.replyWithin(finalWithin(t.session.timeout), sent)
	for n := 0; errors.Is(t.err, errNoCode) && n < maxSurplus; n++ {
		// A line of text before the reply, which comes with it or not at all.
		t.session.bound(textWithin)
		rep, ok = t.replyWithin(finalWithin(t.session.timeout), sent)
	}
	if !ok {
		return
	}
	t.closing(rep)
	switch {
	case rep.code >= 300 && rep.code < 400, sent != nil && rep.positive():
		t.misstep(true, nil, false)
	case !t.anyTaken() && rep.positive():
		// A message for nobody is not taken: this is about something else.
		t.misstep(true, nil, false)
	case t.chunked && t.anyTaken() && aboutVerb(rep.code):
		if flight {
			// What runs the content as commands says much, but never yes.
			surplus, _ := t.sync()
			if slices.ContainsFunc(surplus, func(r relay.Reply) bool { return r.Code < 300 }) {
				t.misstep(false, surplus, false)
				return
			}
		}
		t.lied()
	default:
		fingerprint := rep.fingerprint()
		if t.final = t.export(rep); t.final.Code != 0 && !t.unclear {
			t.confirm(fingerprint, flight)
		}
		if !t.anyTaken() {
			t.final = relay.Reply{} // it was about a message for nobody
		}
	}
}

// closing notes a host that says it will hang up (RFC 5321 §3.8).
func (t *transaction) closing(rep reply) {
	if rep.code == 421 {
		t.session.broken, t.session.hungUp = true, true
	}
}

func (t *transaction) anyTaken() bool { return t.taken() > 0 }

// taken counts the recipients that RCPT accepted.
func (t *transaction) taken() (n int) {
	for i := range t.answers {
		if t.answers[i].standing == taken {
			n++
		}
	}
	return n
}

// probeSize is what a probe says of the size of the message that it does not send.
const probeSize = 1000

// askMail goes as far as MAIL for m, which has no body, and takes it back. It gives the
// refusal, or the zero reply; with an error, the session is broken.
func (s *session) askMail(m *relay.Message) (refusal relay.Reply, err error) {
	line := string(s.ext.appendMail(nil, m, probeSize, false))
	rep, err := s.command(strings.TrimSuffix(line, "\r\n"))
	switch {
	case err != nil:
		s.broken = true
	case rep.positive():
		_, err := s.command("RSET")
		s.broken = err != nil
	default:
		refusal = rep.export()
	}
	return refusal, err
}
