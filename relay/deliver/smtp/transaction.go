package smtp

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/deliver/smtp/wire"
)

// errChunks is the error of a host that refuses BDAT though it lists CHUNKING.
var errChunks = fmt.Errorf("%w: BDAT refused", wire.ErrReply)

// oneFlight is the largest body, in octets, that goes out together with MAIL and RCPT.
// With a larger one a refusal would waste more than a round trip saves.
const oneFlight = 256 << 10

// Standing is what a host said of one recipient.
type Standing string

// The answers to RCPT.
const (
	Unasked Standing = ""         // none
	Taken   Standing = "taken"    // accepted
	Refused Standing = "refused"  // refused
	Unclear Standing = "unclear"  // yes and no at once
	TooMany Standing = "too_many" // refused for want of room in this transaction
)

// RcptAnswer is the answer to one RCPT.
type RcptAnswer struct {
	Standing Standing
	Reply    relay.Reply // of a refusal
}

// Transaction is one transaction that has ended: what was sent, what was answered, how
// far it came.
type Transaction struct {
	Session *Session
	mail    *Mail
	rcpts   []*relay.Recipient
	peer    peer.Traits // what is known of the address
	began   time.Time
	// reused tells that the session came out of the pool, and this is the first
	// transaction since.
	reused bool

	MailRefusal  relay.Reply  // refusal of MAIL; Code 0: none
	Mailed       bool         // MAIL was answered
	unreset      bool         // RSET was refused
	Answers      []RcptAnswer // one per recipient
	Final        relay.Reply  // to the message, or to DATA where that was refused
	Unclear      bool         // MailRefusal or Final says both yes and no, and counts as neither
	Hopeless     bool         // Final is a refusal beside a yes, as in the attempt before
	chunked      bool         // the content goes by BDAT
	Begun        bool         // content was sent
	Ended        bool         // all of the message was sent
	Err          error        // why the conversation broke off; nil: it did not
	fingerprints []uint64     // of the positive replies to MAIL and RCPT
	synced       bool         // EHLO went out behind the content
	// untaken: Err is set, and yet the message cannot have been accepted. unchunked: it
	// was not, because the host does not do what CHUNKING promises.
	untaken, unchunked bool
}

// Transact runs one transaction over the session, for at most as long as the table of
// clocks says. It returns also when the connection was closed meanwhile.
func (s *Session) Transact(m *Mail, rcpts []*relay.Recipient) *Transaction {
	now := time.Now()
	t := &Transaction{Session: s, mail: m, rcpts: rcpts, Answers: make([]RcptAnswer, len(rcpts)), began: now, peer: s.peer(), reused: s.Reused}
	s.Reused = false
	s.Begin(wire.TransactionWithin(s.Timeout, m.Body.Size()))
	s.Mails++
	s.limit = t.peer.Messages(now)
	if s.Unread() && !t.doubted() {
		t.unasked()
	} else {
		t.run()
	}
	s.Finish()
	if t.Err != nil {
		s.Broken = true
		if wire.IsClosed(t.Err) && !wire.ByUs(t.Err) && !t.Mailed && !s.HungUp && !s.cold && s.Carried > 0 {
			s.client.Peers.HungUp(s.Target.Addr)
		}
	}
	s.cold = false
	if t.unreset {
		s.limit = s.Mails // no further message
	}
	s.count(t.Final.Code/100 == 2 && !t.Unclear)
	return t
}

// unasked reads what the host said before MAIL went out. A 421 counts as one to MAIL;
// after anything else the host is out of step.
func (t *Transaction) unasked() {
	rep, err := t.Session.Read(t.Session.Timeout)
	switch {
	case err != nil:
		t.Err = err
	case rep.Code != 421:
		t.misstep(false, nil, false)
	default:
		t.MailRefusal, t.Mailed = rep.Export(), true
		t.closing(rep)
	}
}

func (t *Transaction) run() {
	reset := t.Session.unclean
	t.Session.unclean = true
	switch {
	case t.mayFly(reset):
		t.inOneFlight()
	case t.Session.Ext.Pipelining && !t.doubted():
		t.pipelined(reset)
	default:
		t.stepwise(reset)
	}
	if t.Final.Code >= 200 && t.Final.Code < 300 {
		t.Session.unclean = false
	}
	t.assure()
}

// mayFly reports whether envelope and content may go in one flight. The address must have
// shown how it answers content, and that it does BDAT; the session must not need RSET, nor
// have been idle for long; and the content must mean nothing to a host that refuses the
// recipients and then runs it as commands.
func (t *Transaction) mayFly(reset bool) bool {
	s, p := t.Session, &t.peer
	return s.Ext.Pipelining && s.Ext.Chunking && !reset && !s.cold &&
		t.began.Before(p.Chunks) && p.LearnedAt(t.began) && (len(p.Answers) > 0 || s.Ext.List != 0 && !t.began.Before(p.NoList)) &&
		!t.doubted() &&
		t.mail.Body.Size() <= oneFlight && !t.mail.NamesRecipients()
}

// envelope appends RSET where needed, MAIL and RCPT.
func (t *Transaction) envelope(reset bool) {
	s := t.Session
	if reset {
		s.Out = append(s.Out, "RSET\r\n"...)
	}
	s.Out = s.Ext.AppendMail(s.Out, t.mail.Message, t.mail.Body.Size(), t.utf8())
	for _, r := range t.rcpts {
		s.Out = s.Ext.AppendRcpt(s.Out, r)
	}
}

// utf8 reports whether the transaction is one of RFC 6531.
func (t *Transaction) utf8() bool {
	if !t.Session.Ext.UTF8 {
		return false
	}
	if t.mail.Message.SMTPUTF8 || t.mail.Message.From.NeedsUTF8() {
		return true
	}
	for _, r := range t.rcpts {
		if r.Address.NeedsUTF8() {
			return true
		}
	}
	return false
}

// inOneFlight sends envelope and message at once (RFC 3030 §4.2): one round trip. A host
// that accepts no recipient reads the chunk and refuses it as well. Where the address
// answers content like everything else, EHLO behind it shows which reply is whose.
func (t *Transaction) inOneFlight() {
	t.envelope(false)
	t.bdat(true)
	w := wire.Content{Conn: t.Session.Conn, Gate: t.mail.Gate, Gather: len(t.peer.Answers) == 0}
	sent := w.Send(t.mail.Body)
	if sent == nil && w.Gather {
		t.synced = true
		t.Session.Out = t.Session.appendEHLO(t.Session.Out)
		sent = t.Session.Flush()
	}
	t.Begun, t.Ended = true, sent == nil
	if t.hear(sent, false) {
		t.hearFinal(sent, true)
	}
}

// pipelined sends the envelope in one flight, and the message if a recipient was
// accepted (RFC 2920 §3.1).
func (t *Transaction) pipelined(reset bool) {
	t.envelope(reset)
	chunks := t.byChunks()
	if !chunks {
		t.Session.Out = append(t.Session.Out, "DATA\r\n"...)
	}
	sent := t.Session.Flush()
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
func (t *Transaction) afterData(rep wire.Reply) {
	switch {
	case rep.Code == 354 && t.anyTaken():
		if !t.surplus() {
			t.message(true)
		}
	case rep.Code == 354:
		// No recipient was accepted, yet the host waits for content (RFC 2920
		// §3.1). An empty message ends the transaction, whatever the reply.
		t.Session.Out = append(t.Session.Out, ".\r\n"...)
		if err := t.Session.Flush(); err != nil {
			t.Session.Broken = true
		} else if _, err := t.Session.Read(t.Session.Timeout); err != nil {
			t.Session.Broken = true
		}
	case rep.Code < 400:
		t.misstep(false, nil, false)
	default:
		t.closing(rep)
		t.Final = t.export(rep)
	}
}

// stepwise waits for every reply. It is for a host without PIPELINING, and for one that
// has answered out of step.
func (t *Transaction) stepwise(reset bool) {
	s := t.Session
	if reset && !t.step(func() { s.Out = append(s.Out, "RSET\r\n"...) }, t.heardReset) {
		return
	}
	if !t.step(func() { s.Out = s.Ext.AppendMail(s.Out, t.mail.Message, t.mail.Body.Size(), t.utf8()) }, t.heardMail) {
		return
	}
	for i, r := range t.rcpts {
		if !t.step(func() { s.Out = s.Ext.AppendRcpt(s.Out, r) }, func(rep wire.Reply) bool { return t.heardRcpt(i, rep) }) {
			return
		}
	}
	switch {
	case !t.anyTaken():
	case t.Session.HungUp:
		t.Err = io.EOF
	case t.surplus():
	case t.byChunks():
		t.chunk()
	default:
		t.step(func() { s.Out = append(s.Out, "DATA\r\n"...) }, t.heardData)
	}
}

// heardData goes on after the reply to DATA. From an address that is out of step it skips
// what comes before 354: no other command is answered by 354.
func (t *Transaction) heardData(rep wire.Reply) bool {
	for n := 0; rep.Positive() && t.doubted() && n < maxSurplus; n++ {
		var ok bool
		if rep, ok = t.reply(nil); !ok {
			t.untaken = true
			return false
		}
	}
	t.afterData(rep)
	return true
}

func (t *Transaction) step(command func(), heard func(wire.Reply) bool) bool {
	if t.Session.HungUp {
		t.Err = io.EOF
	}
	if t.Err != nil || t.surplus() {
		return false
	}
	command()
	rep, ok := t.reply(t.Session.Flush())
	return ok && heard(rep)
}

// message sends the body after an accepted envelope.
func (t *Transaction) message(stuff bool) {
	w := wire.Content{Conn: t.Session.Conn, Gate: t.mail.Gate, Stuff: stuff, Watch: true}
	t.Begun = true
	sent := w.Send(t.mail.Body)
	if errors.Is(sent, wire.ErrEarly) {
		t.Session.Broken = true // in the middle of the message
		if w.Early.Code < 400 || w.Surplus() {
			t.misstep(false, nil, false)
			return
		}
		t.Final = t.export(w.Early)
		return
	}
	t.Ended = sent == nil
	t.hearFinal(sent, false)
}

// reply reads the next reply. sent is the error of sending: after one, only a reply that
// came before it can still be read.
func (t *Transaction) reply(sent error) (rep wire.Reply, ok bool) {
	return t.replyWithin(t.Session.Timeout, sent)
}

// replyWithin is reply with a time of its own.
func (t *Transaction) replyWithin(d time.Duration, sent error) (rep wire.Reply, ok bool) {
	switch {
	case sent == nil:
		rep, t.Err = t.Session.Read(d)
	case wire.IsOwn(sent), wire.ByUs(sent):
		t.Err = sent // the host waits for the rest, and will not answer
	default:
		rep, t.Err = t.Session.LastReply(sent)
	}
	t.Session.Broken = t.Session.Broken || sent != nil
	return rep, t.Err == nil
}

// hear reads the replies to the envelope. It goes on after a refusal of MAIL, because
// every command that was sent gets a reply.
func (t *Transaction) hear(sent error, reset bool) bool {
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

// heardReset takes in the reply to RSET. A host that refuses RSET may still accept MAIL;
// only one that leaves may not.
func (t *Transaction) heardReset(rep wire.Reply) bool {
	t.closing(rep)
	t.unreset = !rep.Positive()
	if rep.Code == 421 {
		t.Err, t.untaken = io.EOF, true
		return false
	}
	return true
}

func (t *Transaction) heardMail(rep wire.Reply) bool {
	t.Mailed = true
	if !rep.Positive() || t.doubtful(rep) {
		t.MailRefusal = t.export(rep)
		t.closing(rep)
		return false
	}
	t.heard(rep)
	return true
}

func (t *Transaction) heardRcpt(i int, rep wire.Reply) bool {
	said := &t.Answers[i]
	switch {
	case t.MailRefusal.Code != 0: // "503 MAIL first" says nothing about the recipient
	case t.doubtful(rep):
		said.Standing, said.Reply = Unclear, rep.Export()
	case rep.Positive():
		said.Standing = Taken
		t.heard(rep)
	default:
		said.Standing, said.Reply = Refused, rep.Export()
		if isTooMany(said.Reply, t.anyTaken()) {
			said.Standing = TooMany
		}
		t.closing(rep)
	}
	return true
}

// doubtful reports whether a reply says yes in one line and no in another. The first time
// a message gets such a reply the attempt ends in doubt; the second time the last line
// counts.
func (t *Transaction) doubtful(rep wire.Reply) bool { return rep.Mixed && !t.mail.Doubted }

// export gives the reply to keep, and notes a doubtful one.
func (t *Transaction) export(rep wire.Reply) relay.Reply {
	t.Unclear = t.Unclear || t.doubtful(rep)
	return rep.Export()
}

// hearFinal reads the reply to the message. flight tells that the message was sent
// together with the envelope.
func (t *Transaction) hearFinal(sent error, flight bool) {
	rep, ok := t.replyWithin(wire.FinalWithin(t.Session.Timeout), sent)
	for n := 0; errors.Is(t.Err, wire.ErrNoCode) && n < maxSurplus; n++ {
		// A line of text without a code: the reply comes with it, or not at all.
		t.Session.Bound(wire.TextWithin)
		rep, ok = t.replyWithin(wire.FinalWithin(t.Session.Timeout), sent)
	}
	if !ok {
		return
	}
	t.closing(rep)
	switch {
	case rep.Code >= 300 && rep.Code < 400, sent != nil && rep.Positive():
		t.misstep(true, nil, false)
	case !t.anyTaken() && rep.Positive():
		// No host accepts a message for nobody: this answers something else.
		t.misstep(true, nil, false)
	case t.chunked && t.anyTaken() && aboutVerb(rep.Code):
		if flight {
			// A host that runs the content as commands answers each, never by yes.
			surplus, _ := t.sync()
			if slices.ContainsFunc(surplus, func(r relay.Reply) bool { return r.Code < 300 }) {
				t.misstep(false, surplus, false)
				return
			}
		}
		t.lied()
	default:
		fingerprint := rep.Fingerprint()
		if t.Final = t.export(rep); t.Final.Code != 0 && !t.Unclear {
			t.confirm(fingerprint, flight)
		}
		if !t.anyTaken() {
			t.Final = relay.Reply{} // it answered a message for nobody
		}
	}
}

// closing notes a 421: the host will hang up (RFC 5321 §3.8).
func (t *Transaction) closing(rep wire.Reply) {
	if rep.Code == 421 {
		t.Session.Broken, t.Session.HungUp = true, true
	}
}

func (t *Transaction) anyTaken() bool { return t.CountTaken() > 0 }

// CountTaken counts the recipients that RCPT accepted.
func (t *Transaction) CountTaken() (n int) {
	for i := range t.Answers {
		if t.Answers[i].Standing == Taken {
			n++
		}
	}
	return n
}

// probeSize is what a probe says of the size of the message that it does not send.
const probeSize = 1000

// AskMail sends MAIL for m, and RSET if the host accepts it. It gives the refusal, or the
// zero reply; after an error the session is broken.
func (s *Session) AskMail(m *relay.Message) (refusal relay.Reply, err error) {
	line := string(s.Ext.AppendMail(nil, m, probeSize, false))
	rep, err := s.Command(strings.TrimSuffix(line, "\r\n"))
	switch {
	case err != nil:
		s.Broken = true
	case rep.Positive():
		_, err := s.Command("RSET")
		s.Broken = err != nil
	default:
		refusal = rep.Export()
	}
	return refusal, err
}
