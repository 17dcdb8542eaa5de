package submission

import (
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// chunkBuffers lend the room that BDAT content passes through.
var chunkBuffers = sync.Pool{New: func() any { return new([largeInput]byte) }}

// Data implements smtp.Session, for DATA and, in a goroutine of its own, for
// BDAT. Success is returned as a 250 too, so that it can name the message.
func (s *session) Data(r io.Reader) error {
	env := s.envelope()
	if env == nil || !s.srv.beginBody() {
		if chunked(r) {
			if _, err := io.Copy(io.Discard, r); err != nil {
				givenUp()
			}
		}
		return refusal(451, "4.3.2", "Service shutting down, try again later")
	}
	defer s.srv.bodies.Done()
	m := newSubmitted(s, env)
	defer m.memory.hold(0)
	if err := s.receive(r, m); err != nil {
		m.drop()
		s.srv.metrics.messages.WithLabelValues("aborted").Inc()
		if chunked(r) {
			givenUp()
		}
		return refusal(451, "4.4.2", "The message did not arrive in full")
	}
	reply := m.finish()
	if m.doubtful || m.lines.bareCR && s.srv.o.RefuseBareNewlines && !chunked(r) {
		// What ends the content here may not where the client got it from: what
		// follows is not for us to interpret, whatever this message was refused
		// for.
		s.conn.hangup = true
	}
	s.srv.metrics.finished(reply.Code)
	if reply.Code != 250 {
		s.srv.log.Info("message refused", zap.String("account", string(env.account)), zap.String("key", env.key),
			zap.String("from", "<"+env.from.String()+">"), zap.Stringer("client", s.conn.peer.ip), zap.Int("code", reply.Code), zap.String("reply", reply.Message))
	}
	return reply
}

// givenUp ends the goroutine that go-smtp has for a message of BDAT, once the
// message was given up by RSET, EHLO, too much of it or the end of the connection.
// Nobody waits for its result then, and go-smtp would send it to the channel of
// the message that the session has by that time: its client would be told 451
// though it was stored, or the one after it 250 though it was not.
func givenUp() { runtime.Goexit() }

// chunked tells BDAT from DATA by what go-smtp reads them with; its state may
// be another transaction's by now.
func chunked(r io.Reader) bool {
	_, pipe := r.(*io.PipeReader)
	return pipe
}

// receive reads all content. An error means that there may be more of it,
// which will not be read.
func (s *session) receive(r io.Reader, m *submitted) (err error) {
	if !chunked(r) {
		// Twice the bound, to hear a client out before refusing its message.
		m.doubtful, err = s.conn.readData(2*s.srv.o.MaxMessageBytes+1<<20, m.write)
		return err
	}
	buf := chunkBuffers.Get().(*[largeInput]byte)
	defer chunkBuffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		m.write(buf[:n])
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// submitted is one message on its way into a draft.
type submitted struct {
	session *session
	env     *envelope
	id      relay.MessageID
	at      time.Time
	draft   relay.Draft
	gone    bool  // the draft has ended
	memory  share // for head and draft

	lines    newlines
	scan     scan
	size     int64  // of the content with its line ends in order
	last     byte   // of the content
	doubtful bool   // other servers may not have seen the end of DATA where it was
	head     []byte // until the header section is complete
	inBody   bool
	small    *smallPieces    // gathered for the draft
	refusal  *smtp.SMTPError // the first; what follows is read and dropped

	messageID string
	api       smtpAPI
}

func newSubmitted(s *session, env *envelope) *submitted {
	now := time.Now()
	m := &submitted{
		session: s, env: env, at: now, id: relay.NewMessageID(now),
		draft: s.srv.in.NewDraft(), memory: share{of: s.srv.memory, who: env.account},
	}
	if env.refusal != nil {
		m.refuse(env.refusal)
	}
	return m
}

// refuse gives the message up. What follows of it is read, as slowly as the client
// sends it, and none of it is kept.
func (m *submitted) refuse(r *smtp.SMTPError) {
	if m.refusal == nil {
		m.refusal = r
	}
	m.drop()
}

// drop ends the draft without a message, and gives its memory back.
func (m *submitted) drop() {
	if !m.gone {
		m.gone = true
		m.draft.Discard()
	}
	m.head = nil
	m.memory.hold(0)
}

// fits takes memory for the head, and for the draft with n octets more; false: there
// is none, and the message is refused for it.
func (m *submitted) fits(n int) bool {
	if m.memory.hold(int64(cap(m.head)) + inMemory(m.draft) + int64(n)) {
		return true
	}
	m.refuse(m.session.srv.outOfMemory(m.env.account))
	return false
}

// inMemory is how much of a draft is in memory: all of it, unless it says otherwise.
func inMemory(d relay.Draft) int64 {
	if d, ok := d.(interface{ InMemory() int64 }); ok {
		return d.InMemory()
	}
	return d.Size()
}

// outOfMemory is the reply where an account has as much on its way in as it may.
func (s *Server) outOfMemory(who account.ID) *smtp.SMTPError {
	s.reached("content_memory", who)
	return refusal(452, "4.3.1", "Too much content is on its way in, try again later")
}

// write takes the next piece of content. It writes to b and does not keep it.
func (m *submitted) write(b []byte) { m.lines.next(b, m.take) }

// take takes the next piece of content with its line ends in order.
func (m *submitted) take(b []byte) {
	if m.refusal != nil || m.newlineFault() != "" {
		return
	}
	m.size += int64(len(b))
	if m.size > m.session.srv.o.MaxMessageBytes {
		m.refuse(refusal(552, "5.3.4", tooBig))
		return
	}
	m.scan.next(b)
	m.last = b[len(b)-1]
	if m.inBody {
		m.put(b)
		return
	}
	seen := len(m.head)
	head := b // which is most often all of it, and need not be copied
	if seen > 0 {
		if !m.gather(b) {
			return
		}
		head = m.head
	}
	end, complete := headerEnd(head, seen)
	switch {
	case complete:
		m.begin(head, end)
	case len(head) > maxHeader:
		m.refuse(refusal(552, "5.3.4", headerTooBig))
	case seen == 0:
		m.gather(b)
	}
}

// gather adds to the head, if there is memory for it.
func (m *submitted) gather(b []byte) bool {
	m.head = append(m.head, b...)
	return m.fits(0)
}

// begin writes the start of the message: head, whose header section is its
// first end octets.
func (m *submitted) begin(head []byte, end int) {
	m.inBody, m.head = true, nil
	if end > maxHeader {
		m.refuse(refusal(552, "5.3.4", headerTooBig))
		return
	}
	mbox := mboxLines(head[:end])
	head, end = head[mbox:], end-mbox
	h := parseHeader(head[:end])
	if h.received > maxReceived {
		m.refuse(refusal(554, "5.4.6", "Too many hops: a mail loop"))
		return
	}
	if h.smtpAPI != nil {
		api, err := parseSMTPAPI(h.smtpAPI.value(), m.env.rcpts)
		if err != nil {
			m.refuse(refusal(550, "5.6.0", err.Error()))
			return
		}
		m.api = api
	}
	m.put(m.added(&h))
	for _, run := range h.keep {
		m.put(run)
	}
	if len(h.rest) > 0 {
		// Its sender has forgotten the empty line before the body.
		m.put([]byte("\r\n"))
	}
	m.put(head[end-len(h.rest):])
}

// added makes the fields this relay adds (RFC 5321 §4.4, RFC 6409 §8).
func (m *submitted) added(h *header) []byte {
	s := m.session
	t := trace{
		hello: m.env.hello, ip: s.conn.peer.ip, host: s.srv.o.Hostname, id: m.id.String(), at: m.at,
		esmtp: m.env.esmtp, authed: m.env.authed, smtputf8: m.env.opts.UTF8, tls: s.conn.secured,
	}
	if len(m.env.rcpts) == 1 {
		t.only = m.env.rcpts[0].Address
	}
	b := t.received(make([]byte, 0, 512))
	made := "<" + t.id + "@" + s.srv.o.Hostname + ">"
	m.messageID = smtpID(h.messageID, made)
	if !h.hasID {
		b = appendWords(b, "Message-ID: ", made, "\r\n")
	}
	if !h.hasDate {
		b = appendWords(m.at.AppendFormat(appendWords(b, "Date: "), dateLayout), "\r\n")
	}
	return b
}

// maxMessageID is the length of a line without its end (RFC 5322 §2.1.1).
// Every event of every recipient repeats the id.
const maxMessageID = 998

// smtpID is the id by which events call the message: what it says, in angle
// brackets whether it has them or not, or made where it says nothing fit to
// be repeated (contract §4.2).
func smtpID(said, made string) string {
	switch {
	case said == "" || len(said) > maxMessageID || !utf8.ValidString(said) || strings.ContainsFunc(said, events.Hidden):
		return made
	case said[0] == '<' && said[len(said)-1] == '>':
		return said
	}
	return "<" + said + ">"
}

// smallPieces gathers what would be many small writes. A large draft is a
// file, and content that was mended, or has many stuffed dots, comes in pieces
// of a line each.
type smallPieces struct {
	buf [4 << 10]byte
	n   int
}

var smallBuffers = sync.Pool{New: func() any { return new(smallPieces) }}

// put writes to the draft, at once or by the next flush.
func (m *submitted) put(b []byte) {
	if m.small == nil {
		m.small = smallBuffers.Get().(*smallPieces)
	}
	p := m.small
	if len(b) > len(p.buf)-p.n {
		m.flush()
	}
	if len(b) > len(p.buf)/4 {
		m.flush()
		m.store(b)
		return
	}
	p.n += copy(p.buf[p.n:], b)
}

// flush writes what is gathered.
func (m *submitted) flush() {
	m.store(m.small.buf[:m.small.n])
	m.small.n = 0
}

// store writes to the draft, whose trouble refuses the message.
func (m *submitted) store(b []byte) {
	if m.refusal != nil || len(b) == 0 || !m.fits(len(b)) {
		return
	}
	if _, err := m.draft.Write(b); err != nil {
		m.session.srv.log.Warn("writing a submitted message failed", zap.Error(err))
		m.refuse(replyTo(err))
	}
}

// complete writes what is left to write of the content.
func (m *submitted) complete() {
	m.lines.end(m.take)
	m.scan.end()
	if fault := m.newlineFault(); fault != "" {
		m.refuse(refusal(550, "5.6.0", fault))
	}
	if m.doubtful {
		m.refuse(refusal(550, "5.6.0", doubtfulWords))
	}
	if m.scan.endLike {
		m.refuse(refusal(550, "5.6.0", endLikeWords))
	}
	if !m.inBody && m.refusal == nil {
		m.begin(m.head, len(m.head)) // all header, no body
	}
	if m.size > 0 && m.last != '\n' {
		// BDAT may end without a line end, DATA cannot (RFC 3030 §2).
		m.put(lineEnd)
	}
	if m.small != nil {
		m.flush()
		smallBuffers.Put(m.small)
		m.small = nil
	}
}

// Words of refusal, as they stand in the reply.
const (
	bareCRWords   = "Bare CR is not allowed in a message"
	bareLFWords   = "Bare LF is not allowed in a message"
	doubtfulWords = "CR CR LF before the final dot: not every server takes that for the end of a message"
	endLikeWords  = "A line of NULs and a dot: some servers take it for the end of a message"
)

// newlineFault says what line ends were found that are refused, "" if none.
func (m *submitted) newlineFault() string {
	switch {
	case !m.session.srv.o.RefuseBareNewlines:
	case m.lines.bareCR:
		return bareCRWords
	case m.lines.bareLF:
		return bareLFWords
	}
	return ""
}

// finish ends the draft, one way or the other, and gives the reply.
func (m *submitted) finish() *smtp.SMTPError {
	m.complete()
	if !m.repeatable() {
		m.refuse(refusal(552, "5.3.4", "X-SMTPAPI and Message-ID are too long for so many recipients"))
	}
	if m.refusal != nil {
		return m.refusal
	}
	s, n := m.session, len(m.env.rcpts)
	if reply := s.spend(m.env.account, n); reply != nil {
		m.refuse(reply)
		return reply
	}
	m.gone = true
	err := s.srv.in.Accept(s.srv.content, m.message(), m.env.rcpts, m.draft)
	if err != nil {
		s.srv.quota.give(m.env.account, n, time.Now())
		var reply *smtp.SMTPError
		if !errors.As(err, &reply) && !errors.Is(err, relay.ErrAccountFull) {
			s.srv.log.Warn("accepting a message failed", zap.Error(err))
		}
		return replyTo(err)
	}
	return queued(m.id)
}

// spend counts n recipients to an account, or says why it may not have them: all that
// is there to refuse it by may have changed since MAIL.
func (s *session) spend(id account.ID, n int) *smtp.SMTPError {
	who, err := s.srv.accounts.Account(s.srv.content, id)
	switch {
	case errors.Is(err, account.ErrNotFound), err == nil && who.Disabled:
		s.conn.hangup = true
		return refusal(421, "4.7.0", s.srv.o.Hostname+" The API key of this session is no longer valid, closing connection")
	case err != nil:
		s.srv.log.Warn("account store failed during submission", zap.Error(err))
		return replyTo(err)
	case !s.srv.quota.take(id, n, who.MaxRecipientsPerHour, time.Now()):
		return s.srv.atQuota(who)
	}
	return nil
}

// atQuota is the reply to an account that has had its recipients of the hour.
func (s *Server) atQuota(who account.Account) *smtp.SMTPError {
	s.reached("recipients_per_hour", who.ID)
	return refusal(452, "4.3.1", "Too many recipients in an hour, try again later")
}

// maxRepeated bounds what the events of a message repeat for every recipient, and
// for every webhook besides: all of that is stored at once.
const maxRepeated = 16 << 20

// repeatable reports whether what the events of all recipients repeat stays within
// maxRepeated. On the wire one octet may become six.
func (m *submitted) repeatable() bool {
	given := len(m.api.category) + len(m.messageID)
	for name, value := range m.api.uniqueArgs {
		given += len(name) + len(value)
	}
	n := len(m.env.rcpts)
	if 6*given*n <= maxRepeated {
		return true
	}
	encoded, err := json.Marshal([]any{m.api.category, m.api.uniqueArgs, m.messageID})
	return err == nil && len(encoded)*n <= maxRepeated
}

func (m *submitted) message() relay.Message {
	o := &m.env.opts
	return relay.Message{
		ID: m.id, Account: m.env.account, Accepted: m.at,
		From: m.env.from, Size: m.draft.Size(), SMTPID: m.messageID,
		Client: m.session.conn.peer.ip.String(), Key: m.env.key,
		EnvelopeID: o.EnvelopeID, Return: relay.Return(o.Return),
		RequireTLS: o.RequireTLS, SMTPUTF8: o.UTF8, EightBit: m.scan.eightBit,
		Category: m.api.category, UniqueArgs: m.api.uniqueArgs,
	}
}
