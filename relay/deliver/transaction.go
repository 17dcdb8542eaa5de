package deliver

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"tlsrelay/relay"
)

// errEarly marks a message that the host refused while it was being sent.
var errEarly = errors.New("refused while sending")

// oneFlight is the largest body that goes out together with MAIL and RCPT,
// before either is answered. Beyond it a refusal would waste more than a
// round trip saves.
const oneFlight = 256 << 10

// slowest is the rate in octets per second below which a peer is taken for a
// tarpit, on top of the patience for each step.
const slowest = 1024

// standing is what a host said of one recipient.
type standing string

const (
	unasked standing = ""         // not answered, or no room in this transaction
	taken   standing = "taken"    // RCPT accepted
	refused standing = "refused"  // RCPT refused
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
	job   *Job
	rcpts []*relay.Recipient

	mail    relay.Reply // refusal of MAIL; Code 0: none
	mailed  bool        // MAIL was answered
	answers []answer    // one per recipient
	final   relay.Reply // to the message, or to DATA where that was refused
	ended   bool        // all of the message was sent
	err     error       // the conversation broke off
}

// transact runs one transaction over the session.
func (s *session) transact(job *Job, rcpts []*relay.Recipient) *exchange {
	x := &exchange{s: s, job: job, rcpts: rcpts, answers: make([]answer, len(rcpts))}
	buf := buffers.Get().(*[]byte)
	s.out = (*buf)[:0]
	s.end = time.Now().Add(6*s.timeout + time.Duration(job.Body.Size()/slowest)*time.Second)
	s.mails++
	if s.r.Buffered() > 0 {
		x.unasked()
	} else {
		x.run()
	}
	s.end, s.out = time.Time{}, nil
	s.cold = false
	buffers.Put(buf)
	if x.err != nil {
		s.broken = true
	}
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
		x.err = errReply
	default:
		x.mail, x.mailed = rep.export(), true
		x.closing(rep)
	}
}

func (x *exchange) run() {
	reset := x.s.unclean
	x.s.unclean = true
	switch e := &x.s.ext; {
	case e.pipelining && e.chunking && x.job.Body.Size() <= oneFlight && !x.s.cold:
		x.inOneFlight(reset)
	case e.pipelining:
		x.pipelined(reset)
	default:
		x.stepwise(reset)
	}
	if x.final.Code >= 200 && x.final.Code < 300 {
		x.s.unclean = false
	}
}

// envelope appends RSET where needed, MAIL and RCPT.
func (x *exchange) envelope(reset bool) {
	s := x.s
	if reset {
		s.out = append(s.out, "RSET\r\n"...)
	}
	s.out = s.ext.appendMail(s.out, &x.job.Message, x.job.Body.Size(), x.utf8())
	for _, r := range x.rcpts {
		s.out = s.ext.appendRcpt(s.out, r)
	}
}

// utf8 reports whether the transaction is one of RFC 6531.
func (x *exchange) utf8() bool {
	if !x.s.ext.utf8 {
		return false
	}
	if x.job.Message.SMTPUTF8 || x.job.Message.From.NeedsUTF8() {
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
// read it.
func (x *exchange) inOneFlight(reset bool) {
	x.envelope(reset)
	x.bdat()
	w := content{c: x.s.conn}
	sent := w.send(x.job.Body)
	x.ended = sent == nil
	if x.hear(sent, reset) {
		x.hearFinal(sent)
	}
}

// pipelined sends the envelope in one go, and the message when somebody is
// to have it (RFC 2920 §3.1).
func (x *exchange) pipelined(reset bool) {
	x.envelope(reset)
	if !x.s.ext.chunking {
		x.s.out = append(x.s.out, "DATA\r\n"...)
	}
	sent := x.s.flush()
	if !x.hear(sent, reset) {
		return
	}
	if x.s.ext.chunking {
		if x.anyTaken() {
			x.bdat()
			x.message(false)
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
		x.message(true)
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
		x.err = errReply
	default:
		x.closing(rep)
		x.final = rep.export()
	}
}

// stepwise waits for every answer, for a host without PIPELINING.
func (x *exchange) stepwise(reset bool) {
	s := x.s
	if reset && !x.step(func() { s.out = append(s.out, "RSET\r\n"...) }, x.heardReset) {
		return
	}
	if !x.step(func() { s.out = s.ext.appendMail(s.out, &x.job.Message, x.job.Body.Size(), x.utf8()) }, x.heardMail) {
		return
	}
	for i, r := range x.rcpts {
		if !x.step(func() { s.out = s.ext.appendRcpt(s.out, r) }, func(rep reply) bool { return x.heardRcpt(i, rep) }) {
			return
		}
	}
	switch {
	case !x.anyTaken():
	case s.ext.chunking:
		x.bdat()
		x.message(false)
	default:
		x.step(func() { s.out = append(s.out, "DATA\r\n"...) }, func(rep reply) bool { x.afterData(rep); return true })
	}
}

func (x *exchange) step(command func(), heard func(reply) bool) bool {
	command()
	rep, ok := x.reply(x.s.flush())
	return ok && heard(rep)
}

// bdat announces the whole message as one chunk.
func (x *exchange) bdat() {
	x.s.out = strconv.AppendInt(append(x.s.out, "BDAT "...), x.job.Body.Size(), 10)
	x.s.out = append(x.s.out, " LAST\r\n"...)
}

// message sends the body after an accepted envelope.
func (x *exchange) message(stuff bool) {
	w := content{c: x.s.conn, stuff: stuff, watch: true}
	sent := w.send(x.job.Body)
	if errors.Is(sent, errEarly) {
		x.s.broken = true // in the middle of the message
		if x.final = w.early.export(); w.early.code < 400 {
			x.final, x.err = relay.Reply{}, errReply
		}
		return
	}
	x.ended = sent == nil
	x.hearFinal(sent)
}

// reply reads the next reply. sent is how the sending went: after a failure
// only what the host said before it can still be heard.
func (x *exchange) reply(sent error) (rep reply, ok bool) {
	switch {
	case sent == nil:
		rep, x.err = x.s.read(x.s.timeout)
	case isOwn(sent):
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

func (x *exchange) heardReset(rep reply) bool {
	x.closing(rep)
	if !rep.positive() {
		x.err = errReply // a session that cannot be reset is of no use
		return false
	}
	return true
}

func (x *exchange) heardMail(rep reply) bool {
	x.mailed = true
	if !rep.positive() {
		x.mail = rep.export()
		x.closing(rep)
	}
	return rep.positive()
}

func (x *exchange) heardRcpt(i int, rep reply) bool {
	a := &x.answers[i]
	switch {
	case x.mail.Code != 0: // "503 MAIL first" says nothing about the recipient
	case rep.positive():
		a.standing = taken
	default:
		a.standing, a.reply = refused, rep.export()
		if isTooMany(a.reply, x.anyTaken()) {
			a.standing = tooMany
		}
		x.closing(rep)
	}
	return true
}

// hearFinal reads the answer to the whole message, for which RFC 5321
// §4.5.3.2.6 grants twice the time.
func (x *exchange) hearFinal(sent error) {
	if sent == nil {
		x.s.timeout *= 2
		defer func() { x.s.timeout /= 2 }()
	}
	rep, ok := x.reply(sent)
	if !ok {
		return
	}
	x.closing(rep)
	switch {
	case !x.anyTaken():
		// Whatever was said, it was about a message for nobody.
	case rep.code >= 300 && rep.code < 400, sent != nil && rep.positive():
		x.err = errReply
	default:
		x.final = rep.export()
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

// fullFrom reports whether nobody was taken, or refused for another reason, from
// the ith recipient on.
func (x *exchange) fullFrom(i int) bool {
	return !slices.ContainsFunc(x.answers[i:], func(a answer) bool { return a.standing != tooMany })
}

// isTooMany recognises the refusal of one recipient too many (RFC 5321
// §4.5.3.1.10), which old hosts say with 552: without an enhanced code that is
// too many where others were taken before. With an enhanced code for something
// else, such as a full disk, it is not that.
func isTooMany(r relay.Reply, others bool) bool {
	switch {
	case r.Code == 552:
		return r.Enhanced == "5.5.3" || r.Enhanced == "" && others
	case r.Code == 452 && r.Enhanced == "":
		return true
	}
	return r.Code/100 == 4 && r.Code != 421 && r.Enhanced == "4.5.3"
}
