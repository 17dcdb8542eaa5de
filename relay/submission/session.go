package submission

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/submission/limit"
	"tlsrelay/relay/submission/wire"
)

// session is the layer above go-smtp's conversation. go-smtp calls Reset and Logout
// under its lock, so they must not call its Conn. It runs Data of BDAT beside all
// other methods.
type session struct {
	srv        *Server
	conn       *wire.Conn
	peer       *peer
	clientName func() string // the name in the last greeting; not for Data, since a greeting may run beside it

	// secret is the API key that AUTH succeeded with, "" before. Every MAIL checks
	// it again, so that a revoked key or a disabled account ends at once.
	secret string
	key    string // the id of secret, after the first check of MAIL

	mu  sync.Mutex
	env *envelope // nil: no transaction
}

// envelope is one transaction.
type envelope struct {
	account    account.ID
	key        string // id of the API key, for the log
	authed     bool   // by AUTH, and not by its address
	clientName string // the client's name in its last greeting
	esmtp      bool   // that greeting was EHLO
	from       relay.Address
	opts       smtp.MailOptions
	rcpts      []relay.Recipient

	given   int             // recipients that were accepted, also if rcpts no longer has them
	size    int64           // of them in memory, in octets
	memory  limit.Share     // for that
	refusal *smtp.SMTPError // the reply to the message, whatever its content is; nil: none so far
}

var (
	_ smtp.Session     = (*session)(nil)
	_ smtp.AuthSession = (*session)(nil)
)

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	conn := c.Conn().(*wire.Conn)
	return &session{srv: s, conn: conn, peer: conn.Socket.(*peer), clientName: c.Hostname}, nil
}

// Reset implements smtp.Session.
func (s *session) Reset() { s.setEnvelope(nil) }

// Logout implements smtp.Session.
func (s *session) Logout() error {
	s.setEnvelope(nil)
	return nil
}

func (s *session) setEnvelope(e *envelope) {
	s.mu.Lock()
	if s.env != nil {
		s.env.memory.Resize(0)
	}
	s.env = e
	s.mu.Unlock()
	s.conn.SetBusy(e != nil)
}

// recipients gives what RCPT has added to env: recipients, and the reply to a message
// that is refused for them.
func (s *session) recipients(env *envelope) ([]relay.Recipient, *smtp.SMTPError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return env.rcpts, env.refusal
}

func (s *session) envelope() *envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.env
}

// Mail implements smtp.Session. go-smtp has removed quotes from from, so the address
// is read again from the command line. opts.Auth may claim anything (RFC 4954 §5),
// and is dropped.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if s.envelope() != nil {
		return newReply(503, "5.5.1", "Sender already given")
	}
	who, authed, err := s.submitter()
	if err != nil {
		return err
	}
	if s.srv.o.Admit != nil {
		if err := s.srv.o.Admit(who.ID); err != nil {
			return replyTo(err)
		}
	}
	switch {
	case s.srv.recipients.Exhausted(who.ID, who.MaxRecipientsPerHour, time.Now()):
		return s.srv.outOfRecipients(who)
	case s.srv.memory.Exhausted(who.ID):
		return s.srv.outOfMemory(who.ID)
	}
	if opts.RequireTLS && s.conn.Secured() == "" {
		return newReply(530, "5.7.10", "REQUIRETLS needs TLS here: issue STARTTLS first")
	}
	if len(opts.EnvelopeID) > maxEnvelopeID {
		return newReply(501, "5.5.4", "ENVID is too long")
	}
	env := &envelope{account: who.ID, key: s.key, authed: authed, clientName: s.clientName(), esmtp: s.conn.ESMTP(), opts: *opts}
	env.opts.Auth, env.opts.EnvelopeID = nil, strings.Clone(opts.EnvelopeID)
	env.memory = s.srv.memory.Share(who.ID)
	if from != "" {
		if env.from, err = s.address(opts.UTF8, badSender); err != nil {
			return err
		}
	}
	s.setEnvelope(env)
	return nil
}

// maxEnvelopeID is the longest ENVID, in octets (RFC 3461 §4.4).
const maxEnvelopeID = 100

// submitter finds the account that submits mail, and whether it is known by AUTH. The
// error is a reply.
func (s *session) submitter() (who account.Account, authed bool, err error) {
	ctx := s.srv.content
	if s.secret != "" {
		owner, key, err := account.Authenticate(ctx, s.srv.accounts, s.secret)
		switch {
		case errors.Is(err, account.ErrDenied), err == nil && !key.Allows(account.MailSend):
			s.secret, s.key = "", ""
			s.conn.HangUp(s.srv.partingReply("key_ended"))
			return who, false, newReply(530, "5.7.0", badGrant)
		case err != nil:
			return who, false, s.unavailable(newReply(451, "4.3.0", noAuthority), err)
		}
		s.key = key.ID
		return owner, true, nil
	}
	if !s.trusted() {
		return who, false, s.unauthenticated()
	}
	parent, err := s.srv.accounts.Account(ctx, account.Parent)
	switch {
	case err != nil:
		return who, false, s.unavailable(newReply(451, "4.3.0", noAuthority), err)
	case parent.Disabled:
		return who, false, s.unauthenticated()
	}
	return parent, false, nil
}

// unavailable logs that the account store has failed with err, and returns the reply.
func (s *session) unavailable(reply, err error) error {
	s.srv.log.Warn("account store failed during submission", zap.Error(err))
	return reply
}

// unauthenticated is the reply to MAIL before AUTH. Most often AUTH is offered only
// after STARTTLS, and a client that is not offered AUTH does not know why.
func (s *session) unauthenticated() error {
	text := "Unauthenticated senders not allowed"
	if s.conn.Secured() == "" && s.srv.o.TLS != nil {
		text += ": say STARTTLS first, then AUTH"
	}
	return newReply(530, "5.7.0", text)
}

func (s *session) trusted() bool { return trusts(s.srv.o.Trusted, s.peer.ip) }

func trusts(networks []netip.Prefix, ip netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// Rcpt implements smtp.Session.
func (s *session) Rcpt(_ string, opts *smtp.RcptOptions) error {
	env := s.envelope()
	if env == nil {
		return newReply(503, "5.5.1", "MAIL comes first")
	}
	addr, err := s.address(env.opts.UTF8, badRecipient)
	if err != nil {
		return err
	}
	if addr.LongLocal() {
		return newReply(501, "5.1.3", "Address too long")
	}
	if strings.ContainsFunc(opts.OriginalRecipient, unicode.IsControl) || len(opts.OriginalRecipient) > maxOriginal {
		return newReply(501, "5.5.4", "Malformed ORCPT parameter value")
	}
	rcpt := relay.Recipient{
		Address: addr, Index: len(env.rcpts),
		Notify:       notify(opts.Notify),
		OriginalType: strings.ToLower(string(opts.OriginalRecipientType)),
		Original:     strings.Clone(opts.OriginalRecipient),
	}
	return s.keep(env, rcpt)
}

// recipientSize is about what a recipient takes in memory, in octets, beside what the
// client wrote.
const recipientSize = 256

// keep adds a recipient to the envelope. If there is no memory for it, the whole
// message is refused at its end: most clients would take a refusal of RCPT for one of
// that recipient, and send to the others.
func (s *session) keep(env *envelope, rcpt relay.Recipient) error {
	s.mu.Lock() // for the Data of a BDAT that was given up, which may take env for its own
	defer s.mu.Unlock()
	if env.given >= s.srv.o.MaxRecipients {
		return newReply(452, "4.5.3", "Maximum limit of "+strconv.Itoa(s.srv.o.MaxRecipients)+" recipients reached")
	}
	env.given++
	env.size += int64(recipientSize + len(s.conn.Line()))
	switch {
	case env.refusal != nil:
	case !env.memory.Resize(env.size):
		env.rcpts, env.refusal = nil, s.srv.outOfMemory(env.account)
		env.memory.Resize(0)
	default:
		env.rcpts = append(env.rcpts, rcpt)
	}
	if env.given > 1 {
		// go-smtp keeps a recipient for which it gets nil, with its whole line. It
		// needs one.
		return recipientAccepted
	}
	return nil
}

// recipientAccepted is the reply to RCPT, as an error.
var recipientAccepted = newReply(250, "2.1.5", "Recipient address accepted")

// maxOriginal is the longest address in ORCPT, in octets (RFC 3461 §4.2).
const maxOriginal = 500

func notify(words []smtp.DSNNotify) relay.Notify {
	var n relay.Notify
	for _, w := range words {
		switch w {
		case smtp.DSNNotifyNever:
			n |= relay.NotifyNever
		case smtp.DSNNotifySuccess:
			n |= relay.NotifySuccess
		case smtp.DSNNotifyFailure:
			n |= relay.NotifyFailure
		case smtp.DSNNotifyDelayed:
			n |= relay.NotifyDelay
		}
	}
	return n
}

// address reads the address of the current command. bad is the reply to an address
// that cannot be read.
func (s *session) address(smtputf8 bool, bad *smtp.SMTPError) (relay.Address, error) {
	path, ok := wire.Path(s.conn.Line())
	if !ok {
		return relay.Address{}, bad
	}
	// The clone keeps the line from staying in memory, which may be long.
	a, err := relay.ParseAddress(strings.Clone(path), smtputf8)
	switch {
	case errors.Is(err, relay.ErrAddressUTF8):
		return relay.Address{}, newReply(553, "5.6.7", "Address needs SMTPUTF8")
	case errors.Is(err, relay.ErrAddressLength):
		return relay.Address{}, newReply(501, "5.1.3", "Address too long")
	case err != nil:
		return relay.Address{}, bad
	}
	return a, nil
}
