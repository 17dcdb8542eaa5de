package submission

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay/places"
)

// user is the user name of all clients, as at SendGrid. The key says which account
// it is.
const user = "apikey"

const (
	badUser  = "Authentication failed: Bad username / password"
	badGrant = "Authentication failed: The provided authorization grant is invalid, expired, or revoked"

	noAuthority = "Authentication failed: Could not authenticate"
)

// authenticated is the reply to AUTH that succeeded. It is an error, because go-smtp
// takes a reply text only from errors.
var authenticated = newReply(235, "2.7.0", "Authentication successful")

// AuthMechanisms implements smtp.AuthSession.
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain, sasl.Login} }

// Auth implements smtp.AuthSession.
func (s *session) Auth(mech string) (sasl.Server, error) {
	switch {
	case s.secret != "":
		return nil, newReply(503, "5.5.1", "Already authenticated")
	case s.envelope() != nil:
		return nil, newReply(503, "5.5.1", "AUTH is not allowed during a mail transaction")
	case !s.conn.AuthAllowed():
		return nil, newReply(538, "5.7.11", "Encryption required for authentication: issue STARTTLS first")
	}
	switch mech {
	case sasl.Plain:
		return plain{s}, nil
	case sasl.Login:
		return &login{session: s}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// check logs a client in. It trims white space: it comes from the file or the form
// that the user name or the secret was in, and neither has any.
func (s *session) check(name, secret string) error {
	name, secret = strings.TrimSpace(name), strings.TrimSpace(secret)
	if name != user {
		return s.failed(secret, newReply(535, "5.7.8", badUser))
	}
	owner, key, err := account.Authenticate(s.srv.content, s.srv.accounts, secret)
	switch {
	case errors.Is(err, account.ErrDenied), err == nil && !key.Allows(account.MailSend):
		return s.failed(secret, newReply(535, "5.7.8", badGrant))
	case err != nil:
		// RFC 4954 §6: try again with the same credentials.
		return s.unavailable(newReply(454, "4.7.0", noAuthority), err)
	}
	cause := s.srv.places.Login(&s.peer.seat, owner.ID, secret, time.Now())
	if cause != "" {
		if cause != "gave_way" { // else it is counted
			s.srv.shortOf(places.Loss{Cause: cause, IP: s.peer.ip})
		}
		s.conn.HangUp("")
		return newReply(421, "4.3.2", s.srv.o.Hostname+" Too many connections, try again later")
	}
	s.secret = secret
	return authenticated
}

// maxFailures is how many failures of one connection are answered at once. Clients
// try the mechanisms one after another.
const maxFailures = 5

// failed returns the reply to a login that failed, after a delay if there were too many.
func (s *session) failed(secret string, reply error) error {
	p := s.peer
	p.failures++
	s.srv.metrics.authFailures.Inc()
	slowed, begins := s.srv.failures.Failed(p.ip, time.Now(), p.failures == 1)
	who := []zap.Field{zap.Stringer("client", p.ip), keyField(secret)}
	switch {
	case begins:
		s.srv.log.Warn("too many failed logins: they are answered slowly until none comes for a minute",
			append(who, zap.Stringer("source", places.Source(p.ip)))...)
	case p.failures == 1 && !slowed:
		s.srv.log.Info("submission authentication failed", who...)
	}
	if !slowed && p.failures < maxFailures {
		return reply
	}
	s.srv.failures.Hold(s.srv.content, p.ip)
	s.srv.metrics.rejected.WithLabelValues("auth_failures").Inc()
	s.conn.HangUp("421 4.7.0 " + s.srv.o.Hostname + " Too many failed authentications, closing connection")
	return reply
}

// keyField names the key that a secret claims to be. The id of a key is public.
func keyField(secret string) zap.Field {
	secret = strings.TrimSpace(secret)
	id, _, whole := strings.Cut(strings.TrimPrefix(secret, "SG."), ".")
	if !whole || !strings.HasPrefix(secret, "SG.") || len(id) != 22 || strings.Trim(id, urlSafe) != "" {
		return zap.Skip()
	}
	return zap.String("key", id)
}

const urlSafe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// plain is the PLAIN mechanism (RFC 4616).
type plain struct{ session *session }

// Next implements sasl.Server.
func (p plain) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil {
		return nil, false, nil
	}
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 {
		return nil, false, newReply(501, "5.5.2", "Malformed PLAIN response")
	}
	// An authorization identity is the account to act for: no other one than its own.
	if id := strings.TrimSpace(string(parts[0])); id != "" && id != user {
		return nil, false, p.session.failed(string(parts[2]), newReply(535, "5.7.8", badUser))
	}
	return nil, false, p.session.check(string(parts[1]), string(parts[2]))
}

// login is the LOGIN mechanism. No RFC describes it, and all clients speak it.
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
