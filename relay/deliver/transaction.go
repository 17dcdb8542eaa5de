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

var (
	// errEarly marks a message that the host refused while it was being sent.
	errEarly = errors.New("refused while sending")
	// errStep is the error of replies of which nobody knows what they answer.
	errStep = fmt.Errorf("%w: out of step", errReply)
	// errChunks is that of a host that refuses BDAT though it lists CHUNKING.
	errChunks = fmt.Errorf("%w: BDAT refused", errReply)
)

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

type answer struct {
	standing standing
	reply    relay.Reply // of a refusal
}

// exchange is one transaction: what was sent, what was answered, how far it
// came.
type exchange struct {
	s     *session
	m     *mailObject
	rcpts []*relay.Recipient
	peer  peer      // what is known of the address
	began time.Time // when
	// reused tells that the session came out of the pool, and this is the first
	// transaction since.
	reused bool

	mail     relay.Reply // refusal of MAIL; Code 0: none
	mailed   bool        // MAIL was answered
	unreset  bool        // RSET was refused
	answers  []answer    // one per recipient
	final    relay.Reply // to the message, or to DATA where that was refused
	unclear  bool        // mail or final says both yes and no, and is believed in neither
	hopeless bool        // final is a no beside a yes, and so it was the attempt before
	chunked  bool        // the content goes by BDAT
	begun    bool        // content was sent
	ended    bool        // all of the message was sent
	err      error       // the conversation broke off
	wordings []uint64    // of the answers that took MAIL and RCPT
	synced   bool        // EHLO was asked in the same flight
	// untaken tells that the message cannot have been taken though err is set;
	// unchunked that it was not, for the host does not do what CHUNKING promises.
	untaken, unchunked bool
}

// transact runs one transaction over the session.
func (s *session) transact(m *mailObject, rcpts []*relay.Recipient) *exchange {
	now := time.Now()
	x := &exchange{s: s, m: m, rcpts: rcpts, answers: make([]answer, len(rcpts)), began: now, peer: s.peer(), reused: s.reused}
	s.reused = false
	buf := buffers.Get().(*[]byte)
	s.out = (*buf)[:0]
	s.end = now.Add(transactionWithin(s.timeout, m.body.Size()))
	s.mails++
	s.limit = x.peer.messages(now)
	if s.r.Buffered() > 0 && !x.doubted() {
		x.unasked()
	} else {
		x.run()
	}
	s.end, s.out = time.Time{}, nil
	buffers.Put(buf)
	if x.err != nil {
		s.broken = true
		if isClosed(x.err) && !byUs(x.err) && !x.mailed && !s.hungUp && !s.cold && s.carried > 0 {
			s.client.peers.hungUp(s.key.addr)
		}
	}
	s.cold = false
	if x.unreset {
		s.limit = s.mails // it is not kept
	}
	s.count(x.final.Code/100 == 2 && !x.unclear)
	return x
}

// unasked reads what the host said before it was asked: a 421 is as good as one to
// MAIL, and after anything else it is out of step, as in command.
func (x *exchange) unasked() {
	rep, err := x.s.read(x.s.timeout)
	switch {
	case err != nil:
		x.err = err
	case rep.code != 421:
		x.misstep(false, nil, false)
	default:
		x.mail, x.mailed = rep.export(), true
		x.closing(rep)
	}
}

func (x *exchange) run() {
	reset := x.s.unclean
	x.s.unclean = true
	switch {
	case x.mayFly(reset):
		x.inOneFlight()
	case x.s.ext.pipelining && !x.doubted():
		x.pipelined(reset)
	default:
		x.stepwise(reset)
	}
	if x.final.Code >= 200 && x.final.Code < 300 {
		x.s.unclean = false
	}
	x.assure()
}

// mayFly reports whether envelope and content may go in one flight. That is for
// an address that has shown how it answers content, and that it takes BDAT; for
// a session that has not just failed, and is not likely to be gone; and for
// content that means nothing to a host that takes it for commands because it
// refused the recipients.
func (x *exchange) mayFly(reset bool) bool {
	s, p := x.s, &x.peer
	return s.ext.pipelining && s.ext.chunking && !reset && !s.cold &&
		x.began.Before(p.chunks) && p.worded(x.began) && (len(p.answers) > 0 || s.ext.list != 0 && !x.began.Before(p.noList)) &&
		!x.doubted() &&
		x.m.body.Size() <= oneFlight && !x.m.namesRecipients()
}

// envelope appends RSET where needed, MAIL and RCPT.
func (x *exchange) envelope(reset bool) {
	s := x.s
	if reset {
		s.out = append(s.out, "RSET\r\n"...)
	}
	s.out = s.ext.appendMail(s.out, x.m.message, x.m.body.Size(), x.utf8())
	for _, r := range x.rcpts {
		s.out = s.ext.appendRcpt(s.out, r)
	}
}

// utf8 reports whether the transaction is one of RFC 6531.
func (x *exchange) utf8() bool {
	if !x.s.ext.utf8 {
		return false
	}
	if x.m.message.SMTPUTF8 || x.m.message.From.NeedsUTF8() {
		return true
	}
	for _, r := range x.rcpts {
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
func (x *exchange) inOneFlight() {
	x.envelope(false)
	x.bdat(true)
	w := content{c: x.s.conn, gate: x.m.gate, gather: len(x.peer.answers) == 0}
	sent := w.send(x.m.body)
	if sent == nil && w.gather {
		x.synced = true
		x.s.out = x.s.appendEHLO(x.s.out)
		sent = x.s.flush()
	}
	x.begun, x.ended = true, sent == nil
	if x.hear(sent, false) {
		x.hearFinal(sent, true)
	}
}

// pipelined sends the envelope in one go, and the message when somebody is
// to have it (RFC 2920 §3.1).
func (x *exchange) pipelined(reset bool) {
	x.envelope(reset)
	chunks := x.byChunks()
	if !chunks {
		x.s.out = append(x.s.out, "DATA\r\n"...)
	}
	sent := x.s.flush()
	if !x.hear(sent, reset) {
		return
	}
	if chunks {
		if x.anyTaken() && !x.surplus() {
			x.chunk()
		}
		return
	}
	rep, ok := x.reply(sent)
	if !ok {
		return
	}
	x.afterData(rep)
}

// afterData goes on after the answer to DATA.
func (x *exchange) afterData(rep reply) {
	switch {
	case rep.code == 354 && x.anyTaken():
		if !x.surplus() {
			x.message(true)
		}
	case rep.code == 354:
		// Nobody is to have it, yet the host waits for it (RFC 2920 §3.1): an
		// empty message ends the transaction, whatever it is answered.
		x.s.out = append(x.s.out, ".\r\n"...)
		if err := x.s.flush(); err != nil {
			x.s.broken = true
		} else if _, err := x.s.read(x.s.timeout); err != nil {
			x.s.broken = true
		}
	case rep.code < 400:
		x.misstep(false, nil, false)
	default:
		x.closing(rep)
		x.final = x.export(rep)
	}
}

// stepwise waits for every answer: for a host without PIPELINING, and for one
// that has answered out of step.
func (x *exchange) stepwise(reset bool) {
	s := x.s
	if reset && !x.step(func() { s.out = append(s.out, "RSET\r\n"...) }, x.heardReset) {
		return
	}
	if !x.step(func() { s.out = s.ext.appendMail(s.out, x.m.message, x.m.body.Size(), x.utf8()) }, x.heardMail) {
		return
	}
	for i, r := range x.rcpts {
		if !x.step(func() { s.out = s.ext.appendRcpt(s.out, r) }, func(rep reply) bool { return x.heardRcpt(i, rep) }) {
			return
		}
	}
	switch {
	case !x.anyTaken():
	case x.s.hungUp:
		x.err = io.EOF
	case x.surplus():
	case x.byChunks():
		x.chunk()
	default:
		x.step(func() { s.out = append(s.out, "DATA\r\n"...) }, x.heardData)
	}
}

// heardData goes on after the answer to DATA, which is like no other where it is a
// yes: what an address that is out of step says before it is about something else.
func (x *exchange) heardData(rep reply) bool {
	for n := 0; rep.positive() && x.doubted() && n < maxSurplus; n++ {
		var ok bool
		if rep, ok = x.reply(nil); !ok {
			x.untaken = true
			return false
		}
	}
	x.afterData(rep)
	return true
}

func (x *exchange) step(command func(), heard func(reply) bool) bool {
	if x.s.hungUp {
		x.err = io.EOF
	}
	if x.err != nil || x.surplus() {
		return false
	}
	command()
	rep, ok := x.reply(x.s.flush())
	return ok && heard(rep)
}

// message sends the body after an accepted envelope.
func (x *exchange) message(stuff bool) {
	w := content{c: x.s.conn, gate: x.m.gate, stuff: stuff, watch: true}
	x.begun = true
	sent := w.send(x.m.body)
	if errors.Is(sent, errEarly) {
		x.s.broken = true // in the middle of the message
		if w.early.code < 400 || w.surplus() {
			x.misstep(false, nil, false)
			return
		}
		x.final = x.export(w.early)
		return
	}
	x.ended = sent == nil
	x.hearFinal(sent, false)
}

// reply reads the next reply. sent is how the sending went: after a failure
// only what the host said before it can still be heard.
func (x *exchange) reply(sent error) (rep reply, ok bool) { return x.replyWithin(x.s.timeout, sent) }

// replyWithin is reply with a time of its own.
func (x *exchange) replyWithin(d time.Duration, sent error) (rep reply, ok bool) {
	switch {
	case sent == nil:
		rep, x.err = x.s.read(d)
	case isOwn(sent), byUs(sent):
		x.err = sent // the host waits for the rest; there is nothing to hear
	default:
		rep, x.err = x.s.lastWords(sent)
	}
	x.s.broken = x.s.broken || sent != nil
	return rep, x.err == nil
}

// hear reads the answers to the envelope. It goes on after a refusal of MAIL,
// for every command that was sent is answered.
func (x *exchange) hear(sent error, reset bool) bool {
	if reset {
		if rep, ok := x.reply(sent); !ok || !x.heardReset(rep) {
			return false
		}
	}
	rep, ok := x.reply(sent)
	if !ok {
		return false
	}
	x.heardMail(rep)
	for i := range x.rcpts {
		if rep, ok = x.reply(sent); !ok {
			return false
		}
		x.heardRcpt(i, rep)
	}
	return true
}

// heardReset takes in the answer to RSET. A host that refuses it takes MAIL all
// the same, or says no to that as well; only one that leaves does not.
func (x *exchange) heardReset(rep reply) bool {
	x.closing(rep)
	x.unreset = !rep.positive()
	if rep.code == 421 {
		x.err, x.untaken = io.EOF, true
		return false
	}
	return true
}

func (x *exchange) heardMail(rep reply) bool {
	x.mailed = true
	if !rep.positive() || x.doubtful(rep) {
		x.mail = x.export(rep)
		x.closing(rep)
		return false
	}
	x.heard(rep)
	return true
}

func (x *exchange) heardRcpt(i int, rep reply) bool {
	said := &x.answers[i]
	switch {
	case x.mail.Code != 0: // "503 MAIL first" says nothing about the recipient
	case x.doubtful(rep):
		said.standing, said.reply = unclear, rep.export()
	case rep.positive():
		said.standing = taken
		x.heard(rep)
	default:
		said.standing, said.reply = refused, rep.export()
		if isTooMany(said.reply, x.anyTaken()) {
			said.standing = tooMany
		}
		x.closing(rep)
	}
	return true
}

// doubtful reports whether a reply says yes in one line and no in another. That
// may be a slip the first time; of the same message, the last line counts the
// second time.
func (x *exchange) doubtful(rep reply) bool { return rep.mixed && !x.m.doubted }

// export makes the reply that is kept, and notes one that is not believed.
func (x *exchange) export(rep reply) relay.Reply {
	x.unclear = x.unclear || x.doubtful(rep)
	return rep.export()
}

// hearFinal reads the answer to the whole message, for which RFC 5321
// §4.5.3.2.6 grants twice the time. flight tells that it was sent together with
// the envelope.
func (x *exchange) hearFinal(sent error, flight bool) {
	rep, ok := x.replyWithin(finalWithin(x.s.timeout), sent)
	for n := 0; errors.Is(x.err, errNoCode) && n < maxSurplus; n++ {
		// A line of text before the reply, which comes with it or not at all.
		x.s.end = time.Now().Add(textWithin)
		rep, ok = x.replyWithin(finalWithin(x.s.timeout), sent)
	}
	if !ok {
		return
	}
	x.closing(rep)
	switch {
	case rep.code >= 300 && rep.code < 400, sent != nil && rep.positive():
		x.misstep(true, nil, false)
	case !x.anyTaken() && rep.positive():
		// A message for nobody is not taken: this is about something else.
		x.misstep(true, nil, false)
	case x.chunked && x.anyTaken() && aboutVerb(rep.code):
		if flight {
			// What runs the content as commands says much, but never yes.
			surplus, _ := x.sync()
			if slices.ContainsFunc(surplus, func(r relay.Reply) bool { return r.Code < 300 }) {
				x.misstep(false, surplus, false)
				return
			}
		}
		x.lied()
	default:
		wording := rep.wording()
		if x.final = x.export(rep); x.final.Code != 0 && !x.unclear {
			x.confirm(wording, flight)
		}
		if !x.anyTaken() {
			x.final = relay.Reply{} // it was about a message for nobody
		}
	}
}

// closing notes a host that says it will hang up (RFC 5321 §3.8).
func (x *exchange) closing(rep reply) {
	if rep.code == 421 {
		x.s.broken, x.s.hungUp = true, true
	}
}

func (x *exchange) anyTaken() bool { return x.taken() > 0 }

// taken counts the recipients that RCPT accepted.
func (x *exchange) taken() (n int) {
	for i := range x.answers {
		if x.answers[i].standing == taken {
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
