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

// session is what go-smtp's conversation means. Reset and Logout are called
// under go-smtp's lock and must not call back into its Conn; Data of a BDAT
// runs beside all other methods.
type session struct {
	srv   *Server
	conn  *wire.Conn
	peer  *peer
	hello func() string // as of the last greeting; not for Data, which may run beside the next

	// secret is what AUTH succeeded with, "" before: it is asked again at
	// every MAIL, so that revoking a key or disabling an account stops at once.
	secret string
	key    string // the id of its key, once sender has asked

	mu  sync.Mutex
	env *envelope // nil: no transaction
}

// envelope is one transaction, until it is handed to Intake.
type envelope struct {
	account account.ID
	key     string // id of the API key, for the log
	authed  bool   // with AUTH, and not by its address
	hello   string // the client's name in its last greeting
	esmtp   bool   // which was EHLO
	from    relay.Address
	opts    smtp.MailOptions
	rcpts   []relay.Recipient

	given   int             // recipients, also those that are not kept
	size    int64           // of what is kept of them
	memory  limit.Share     // for that
	refusal *smtp.SMTPError // of the message, whatever it is; nil: none so far
}

var (
	_ smtp.Session     = (*session)(nil)
	_ smtp.AuthSession = (*session)(nil)
)

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	conn := c.Conn().(*wire.Conn)
	return &session{srv: s, conn: conn, peer: conn.Socket.(*peer), hello: c.Hostname}, nil
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

// Mail implements smtp.Session. from has lost its quotes on the way, so the
// address is read again from the command line. opts.Auth is somebody's claim,
// may hold anything (RFC 4954 §5), and goes nowhere.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if s.envelope() != nil {
		return refusal(503, "5.5.1", "Sender already given")
	}
	who, authed, err := s.sender()
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
		return s.srv.atQuota(who)
	case s.srv.memory.Exhausted(who.ID):
		return s.srv.outOfMemory(who.ID)
	}
	if opts.RequireTLS && s.conn.Secured() == "" {
		return refusal(530, "5.7.10", "REQUIRETLS needs TLS here: issue STARTTLS first")
	}
	if len(opts.EnvelopeID) > maxEnvelopeID {
		return refusal(501, "5.5.4", "ENVID is too long")
	}
	env := &envelope{account: who.ID, key: s.key, authed: authed, hello: s.hello(), esmtp: s.conn.ESMTP(), opts: *opts}
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

// maxEnvelopeID is the bound of RFC 3461 §4.4.
const maxEnvelopeID = 100

// sender says for whom mail is submitted now.
func (s *session) sender() (who account.Account, authed bool, err error) {
	ctx := s.srv.content
	if s.secret != "" {
		owner, key, err := account.Authenticate(ctx, s.srv.accounts, s.secret)
		switch {
		case errors.Is(err, account.ErrDenied), err == nil && !key.Allows(account.MailSend):
			s.secret, s.key = "", ""
			s.conn.HangUp(s.srv.words("key_ended"))
			return who, false, refusal(530, "5.7.0", badGrant)
		case err != nil:
			return who, false, s.unavailable(refusal(451, "4.3.0", noAuthority), err)
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
		return who, false, s.unavailable(refusal(451, "4.3.0", noAuthority), err)
	case parent.Disabled:
		return who, false, s.unauthenticated()
	}
	return parent, false, nil
}

// unavailable is the reply where the account store has failed with err.
func (s *session) unavailable(reply, err error) error {
	s.srv.log.Warn("account store failed during submission", zap.Error(err))
	return reply
}

// unauthenticated is the reply to MAIL before AUTH. Without TLS, AUTH is most
// often not offered, and a client that sees none does not know why.
func (s *session) unauthenticated() error {
	text := "Unauthenticated senders not allowed"
	if s.conn.Secured() == "" && s.srv.o.TLS != nil {
		text += ": say STARTTLS first, then AUTH"
	}
	return refusal(530, "5.7.0", text)
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
		return refusal(503, "5.5.1", "MAIL comes first")
	}
	addr, err := s.address(env.opts.UTF8, badRecipient)
	if err != nil {
		return err
	}
	if addr.LongLocal() {
		return refusal(501, "5.1.3", "Address too long")
	}
	if strings.ContainsFunc(opts.OriginalRecipient, unicode.IsControl) || len(opts.OriginalRecipient) > maxOriginal {
		return refusal(501, "5.5.4", "Malformed ORCPT parameter value")
	}
	rcpt := relay.Recipient{
		Address: addr, Index: len(env.rcpts),
		Notify:       notify(opts.Notify),
		OriginalType: strings.ToLower(string(opts.OriginalRecipientType)),
		Original:     strings.Clone(opts.OriginalRecipient),
	}
	return s.keep(env, rcpt)
}

// recipientSize is about what a recipient takes beside what the client wrote.
const recipientSize = 256

// keep adds a recipient to the envelope. What there is no memory for is refused with
// the message, for a refusal of one recipient is a matter of that recipient to most
// clients.
func (s *session) keep(env *envelope, rcpt relay.Recipient) error {
	s.mu.Lock() // for the Data of a BDAT that was given up, which may take env for its own
	defer s.mu.Unlock()
	if env.given >= s.srv.o.MaxRecipients {
		return refusal(452, "4.5.3", "Maximum limit of "+strconv.Itoa(s.srv.o.MaxRecipients)+" recipients reached")
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
		// go-smtp keeps what it has a 250 for, with the line it stood in. It needs to
		// know of one.
		return taken
	}
	return nil
}

// taken is the reply to a recipient. It travels as an error so that it is ours.
var taken = refusal(250, "2.1.5", "Recipient address accepted")

// maxOriginal is the bound of RFC 3461 §4.2.
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

// address reads the address of the current command; bad is the reply to one
// that has no meaning.
func (s *session) address(smtputf8 bool, bad *smtp.SMTPError) (relay.Address, error) {
	path, ok := wire.Path(s.conn.Line())
	if !ok {
		return relay.Address{}, bad
	}
	// What is kept of the line is not to keep the line, which may be long.
	a, err := relay.ParseAddress(strings.Clone(path), smtputf8)
	switch {
	case errors.Is(err, relay.ErrAddressUTF8):
		return relay.Address{}, refusal(553, "5.6.7", "Address needs SMTPUTF8")
	case errors.Is(err, relay.ErrAddressLength):
		return relay.Address{}, refusal(501, "5.1.3", "Address too long")
	case err != nil:
		return relay.Address{}, bad
	}
	return a, nil
}
