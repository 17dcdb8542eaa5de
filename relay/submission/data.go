// From a 250 to the block event, 1 of 10: this file reads the content, hands the
// message over, and says 250. Next: relay/queue/accept.go.

package submission

import (
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/submission/content"
	"tlsrelay/relay/submission/limit"
)

// chunkBuffers are for reading the content of BDAT.
var chunkBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// Data implements smtp.Session. go-smtp calls it for DATA, and for BDAT in a goroutine
// of its own. It returns success as an error value with the code 250, because go-smtp's
// own 250 cannot tell the id of the message.
func (s *session) Data(r io.Reader) error {
	env := s.envelope()
	if env == nil || !s.srv.beginBody() {
		if chunked(r) {
			if _, err := io.Copy(io.Discard, r); err != nil {
				endChunks()
			}
		}
		return newReply(451, "4.3.2", "Service shutting down, try again later")
	}
	defer s.srv.bodies.Done()
	m := newSubmitted(s, env)
	defer m.memory.Resize(0)
	if err := s.receive(r, m); err != nil {
		m.drop()
		s.srv.metrics.messages.WithLabelValues("aborted").Inc()
		if chunked(r) {
			endChunks()
		}
		return newReply(451, "4.4.2", "The message did not arrive in full")
	}
	reply := m.finish()
	if m.doubtful || m.content.BareCR() && s.srv.o.RefuseBareNewlines && !chunked(r) {
		// The client may not have meant to end the content here. So what follows may
		// be content, and is no command, whatever the message was refused for.
		s.conn.HangUp("")
	}
	s.srv.metrics.finished(reply.Code)
	if reply.Code != 250 {
		s.srv.log.Info("message refused", zap.String("account", string(env.account)), zap.String("key", env.key),
			zap.String("from", "<"+env.from.String()+">"), zap.Stringer("client", s.peer.ip), zap.Int("code", reply.Code), zap.String("reply", reply.Message))
	}
	return reply
}

// endChunks ends go-smtp's goroutine for a message of BDAT, without a result. It is
// called after RSET, EHLO, too much content or the end of the connection has ended the
// message. Nobody waits for the result then. go-smtp would take it for the result of
// the next message: the client would read 451 for a message that is stored, or 250 for
// one that is not.
func endChunks() { runtime.Goexit() }

// chunked reports whether the content comes by BDAT. go-smtp gives a pipe then. Its
// state cannot be asked, since another transaction may have begun.
func chunked(r io.Reader) bool {
	_, pipe := r.(*io.PipeReader)
	return pipe
}

// receive reads all content. After an error there may be more, and nobody reads it.
func (s *session) receive(r io.Reader, m *submitted) (err error) {
	if !chunked(r) {
		// Twice the allowed size, because a client reads the refusal only after it has
		// sent all.
		m.doubtful, err = s.conn.ReadData(2*s.srv.o.MaxMessageBytes+1<<20, m.next)
		return err
	}
	buf := chunkBuffers.Get().(*[32 << 10]byte)
	defer chunkBuffers.Put(buf)
	for {
		n, err := r.Read(buf[:])
		m.next(buf[:n])
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
	ended   bool        // the draft was discarded or accepted
	memory  limit.Share // for the header section and the draft

	content  content.Rewriter // writes to this
	head     int64            // octets of the header section in memory, until it is complete
	doubtful bool             // other servers may see the end elsewhere (content.Undot)
}

func newSubmitted(s *session, env *envelope) *submitted {
	now := time.Now()
	rcpts, refusal := s.recipients(env)
	m := &submitted{
		session: s, env: env, at: now, id: relay.NewMessageID(now),
		draft: s.srv.in.NewDraft(env.account), memory: s.srv.memory.Share(env.account),
	}
	m.content = content.Rewriter{
		Envelope: content.Envelope{
			ClientName: env.clientName, Client: s.peer.ip, Hostname: s.srv.o.Hostname, ID: m.id.String(), At: now,
			ESMTP: env.esmtp, Authed: env.authed, SMTPUTF8: env.opts.UTF8, Secured: s.conn.Secured(),
			Recipients: rcpts,
		},
		MaxBytes: s.srv.o.MaxMessageBytes, RefuseBareNewlines: s.srv.o.RefuseBareNewlines, To: m,
	}
	if refusal != nil {
		m.content.Refuse(refusal)
	}
	return m
}

// next takes the next piece of content. After a refusal the client may still send for
// a long time, so the draft is dropped at once.
func (m *submitted) next(b []byte) {
	if m.content.Next(b) != nil {
		m.drop()
	}
}

// drop discards the draft, and gives its memory back.
func (m *submitted) drop() {
	if !m.ended {
		m.ended = true
		m.draft.Discard()
	}
	m.memory.Resize(0)
}

// Gather implements content.Sink.
func (m *submitted) Gather(n int) error {
	m.head = int64(n)
	return m.fit(0)
}

// Write implements content.Sink: it writes to the draft.
func (m *submitted) Write(b []byte) (int, error) {
	m.head = 0
	if err := m.fit(len(b)); err != nil {
		return 0, err
	}
	n, err := m.draft.Write(b)
	if err != nil {
		m.session.srv.log.Warn("writing a submitted message failed", zap.Error(err))
		return n, replyTo(err)
	}
	return n, nil
}

// fit takes memory for the header section, and for the draft with n octets more.
func (m *submitted) fit(n int) error {
	if m.memory.Resize(m.head + inMemory(m.draft) + int64(n)) {
		return nil
	}
	return m.session.srv.outOfMemory(m.env.account)
}

// inMemory is how much of a draft is in memory, in octets: all, unless it says less.
func inMemory(d relay.Draft) int64 {
	if d, ok := d.(interface{ InMemory() int64 }); ok {
		return d.InMemory()
	}
	return d.Size()
}

// outOfMemory is the reply to an account that may have no more memory.
func (s *Server) outOfMemory(who account.ID) *smtp.SMTPError {
	s.atBound("content_memory", who)
	return newReply(452, "4.3.1", "Too much content is on its way in, try again later")
}

// finish accepts the message or drops it, and returns the reply. The queue implements
// Accept (relay/queue/accept.go). It returns nil only when the message is stored, so the
// 250 promises no less than that.
func (m *submitted) finish() *smtp.SMTPError {
	about, err := m.content.End(m.doubtful)
	if err != nil {
		m.drop()
		return replyTo(err)
	}
	s, rcpts := m.session, m.content.Envelope.Recipients
	if reply := s.spend(m.env.account, len(rcpts)); reply != nil {
		m.drop()
		return reply
	}
	m.ended = true
	err = s.srv.in.Accept(s.srv.content, m.message(about), rcpts, m.draft)
	if err != nil {
		s.srv.recipients.GiveBack(m.env.account, len(rcpts), time.Now())
		var reply *smtp.SMTPError
		if !errors.As(err, &reply) && !errors.Is(err, relay.ErrAccountFull) {
			s.srv.log.Warn("accepting a message failed", zap.Error(err))
		}
		return replyTo(err)
	}
	return queued(m.id)
}

// spend counts n recipients of an account. It returns the reply if the account may not
// have them, or nil. It reads the account again, for it may have changed since MAIL.
func (s *session) spend(id account.ID, n int) *smtp.SMTPError {
	who, err := s.srv.accounts.Account(s.srv.content, id)
	switch {
	case errors.Is(err, account.ErrNotFound), err == nil && who.Disabled:
		s.conn.HangUp("")
		return newReply(421, "4.7.0", s.srv.o.Hostname+" The API key of this session is no longer valid, closing connection")
	case err != nil:
		s.srv.log.Warn("account store failed during submission", zap.Error(err))
		return replyTo(err)
	case !s.srv.recipients.Take(id, n, who.MaxRecipientsPerHour, time.Now()):
		return s.srv.outOfRecipients(who)
	}
	return nil
}

// outOfRecipients is the reply to an account that may have no more recipients this hour.
func (s *Server) outOfRecipients(who account.Account) *smtp.SMTPError {
	s.atBound("recipients_per_hour", who.ID)
	return newReply(452, "4.3.1", "Too many recipients in an hour, try again later")
}

// message gives what is stored beside the content. RequireTLS is the client's REQUIRETLS
// on MAIL (RFC 8689). The account's require_tls is not copied: the relay asks for it at
// each attempt, so that a change acts on queued messages (relay/queue/attempt/demands.go).
func (m *submitted) message(about content.Summary) relay.Message {
	o := &m.env.opts
	return relay.Message{
		ID: m.id, Account: m.env.account, Accepted: m.at,
		From: m.env.from, Size: m.draft.Size(), SMTPID: about.MessageID,
		Client: m.session.peer.ip.String(), Key: m.env.key,
		EnvelopeID: o.EnvelopeID, Return: relay.Return(o.Return),
		RequireTLS: o.RequireTLS, SMTPUTF8: o.UTF8, EightBit: about.EightBit,
		Category: about.Category, UniqueArgs: about.UniqueArgs,
	}
}
