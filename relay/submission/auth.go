package submission

import (
	"bytes"
	"errors"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
)

// user is the one user name; who it is says the key (contract §7).
const user = "apikey"

const (
	badUser  = "Authentication failed: Bad username / password"
	badGrant = "Authentication failed: The provided authorization grant is invalid, expired, or revoked"
)

// authenticated is the reply to AUTH that succeeded. It travels as an error,
// because go-smtp lets only errors bring their own words.
var authenticated = refusal(235, "2.7.0", "Authentication successful")

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// Auth implements smtp.AuthSession.
func (s *session) Auth(mech string) (sasl.Server, error) {
	switch {
	case s.secret != "":
		return nil, refusal(503, "5.5.1", "Already authenticated")
	case s.envelope() != nil:
		return nil, refusal(503, "5.5.1", "AUTH is not allowed during a mail transaction")
	case !s.conn.authAllowed():
		return nil, refusal(538, "5.7.11", "Encryption required for authentication: issue STARTTLS first")
	case s.srv.guard.paused(s.conn.peer.ip, time.Now()):
		return nil, s.tooMany()
	}
	switch mech {
	case sasl.Plain:
		return plain{s}, nil
	case sasl.Login:
		return &login{session: s}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// tooMany is the reply to a source that is paused; the connection closes.
func (s *session) tooMany() error {
	s.conn.hangup = true
	s.srv.metrics.rejected.WithLabelValues("auth_failures").Inc()
	return refusal(421, "4.7.0", "Too many failed authentications, try again later")
}

// check decides about a user name and a secret.
func (s *session) check(name, secret string) error {
	if name != user {
		return s.failed(refusal(535, "5.7.8", badUser))
	}
	_, key, err := account.Authenticate(s.srv.content, s.srv.accounts, secret)
	switch {
	case errors.Is(err, account.ErrDenied), err == nil && !key.Allows(account.MailSend):
		return s.failed(refusal(535, "5.7.8", badGrant))
	case err != nil:
		return s.unavailable(err)
	}
	s.secret = secret
	return authenticated
}

func (s *session) failed(reply error) error {
	ip := s.conn.peer.ip
	s.srv.metrics.authFailures.Inc()
	s.srv.log.Info("submission authentication failed", zap.Stringer("client", ip))
	s.srv.guard.failed(ip, time.Now())
	return reply
}

// plain is the PLAIN mechanism (RFC 4616).
type plain struct{ session *session }

// Next implements sasl.Server.
func (p plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return nil, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, false, refusal(501, "5.5.2", "Malformed PLAIN response")
	}
	// An authorization identity other than one's own asks for another's rights.
	if id := string(parts[0]); id != "" && id != user {
		return nil, false, p.session.failed(refusal(535, "5.7.8", badUser))
	}
	return nil, false, p.session.check(string(parts[1]), string(parts[2]))
}

// login is the LOGIN mechanism, which no RFC describes and all clients speak.
type login struct {
	session *session
	name    *string
}

// Next implements sasl.Server.
func (l *login) Next(response []byte) (challenge []byte, done bool, err error) {
	switch {
	case response == nil:
		return []byte("Username:"), false, nil
	case l.name == nil:
		name := string(response)
		l.name = &name
		return []byte("Password:"), false, nil
	}
	return nil, false, l.session.check(*l.name, string(response))
}
