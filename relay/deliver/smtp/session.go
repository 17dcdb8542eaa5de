package smtp

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/deliver/smtp/handshake"
	"tlsrelay/relay/deliver/smtp/wire"
)

// Session is an open SMTP session that could carry MAIL. It serves one attempt at a time.
type Session struct {
	*wire.Conn
	Target Target
	Local  netip.Addr
	Ext    wire.Extensions

	Seen  policy.Observed // at StageReady; the certificate is completed per message
	facts handshake.Findings
	names []string // the reference names that cert was completed for
	cert  policy.Certificate

	Opened, IdleSince time.Time // IdleSince is the pool's
	InTurn            time.Time // when it was last used in the turn of its host
	Mails             int       // transactions begun
	Carried           int       // messages that the host has accepted
	barren            int       // transactions in a row that served nobody
	limit, most       int       // transactions it may carry, as the address has shown and as configured; 0: any number
	Reused            bool      // it came out of the pool, and no transaction was made since
	cold              bool      // the host may have hung up by now, or may break at the first command
	unclean           bool      // a transaction is open: RSET first
	Broken            bool      // out of step or closed: it carries nothing more
	HungUp            bool      // the host said 421

	ehlo   string // our name, as EHLO gives it
	client *Client
}

// Target is whom a session is with, and as whom we speak to it. Two messages whose
// targets differ share no session, whatever they demand.
type Target struct {
	Host string // as the MX record names it
	handshake.Endpoint
	EHLO string // our name in EHLO; "": the address literal of the connection
}

// ColdAfter is how long a session may have been idle for the whole message to go out
// before the host answers. The sessions of a busy destination are younger, and every host
// keeps idle sessions for longer.
const ColdAfter = time.Second

// maxBarren is how many transactions in a row may serve nobody. Hosts slow down, or end, a
// session that only asks for unknown recipients.
const maxBarren = 3

// count takes a finished transaction into account.
func (s *Session) count(served bool) {
	if !served {
		s.barren++
		return
	}
	s.Carried++
	s.barren = 0
}

// Spent reports whether the session carries no more messages: by what the host
// said in LIMITS (RFC 9422 §4), by what it has shown, or by how it was treated.
func (s *Session) Spent() bool {
	for _, most := range [...]int{s.Ext.MailMax, s.limit, s.most} {
		if most > 0 && s.Mails >= most {
			return true
		}
	}
	return s.Broken || s.barren >= maxBarren
}

// appendEHLO writes EHLO, as it was said when the session began.
func (s *Session) appendEHLO(b []byte) []byte {
	return append(append(append(b, "EHLO "...), s.ehlo...), "\r\n"...)
}

// Observed gives what was seen of the session, as a message with these
// reference names sees it. The names differ by recipient domain, so a reused
// session is looked at anew for each of them.
func (s *Session) Observed(names []string) policy.Observed {
	o := s.Seen
	if o.TLS == nil {
		return o
	}
	now := time.Now()
	if s.names == nil || !slices.Equal(s.names, names) || now.After(s.cert.NotAfter) {
		s.names, s.cert = names, s.facts.For(names, now)
	}
	t := *o.TLS
	t.Cert = s.cert
	o.TLS = &t
	return o
}

// Reuse notes that the session comes out of the pool.
func (s *Session) Reuse() { s.Reused, s.cold = true, time.Since(s.IdleSince) >= ColdAfter }

// peer gives what is known of the address now.
func (s *Session) peer() peer.Traits { return s.client.Peers.Get(s.Target.Addr) }

// OneMessage reports whether the address takes no more than one message over a
// connection.
func (s *Session) OneMessage() bool { return s.peer().Messages(time.Now()) == 1 }

// StepByStep reports whether the address has answered out of step lately.
func (s *Session) StepByStep() bool { return time.Now().Before(s.peer().OutOfStep) }

// Lost puts into o what a session shows that broke off at MAIL or after it, and
// gives our text for it.
func (s *Session) Lost(o *policy.Observed, err error) relay.Reply {
	o.Stage = policy.StageMail
	o.Fault, o.Alert = wire.FaultOf(err, false)
	o.Fault = cmp.Or(o.Fault, policy.Closed)
	return relay.Reply{Text: wire.ErrorText(err, s.Target.Addr)}
}

// Poolable reports whether other messages may use the session. In clear that
// is so only where the host has no STARTTLS: a session of phase 2 would keep
// TLS from messages after this one.
func (s *Session) Poolable() bool {
	if s.Spent() {
		return false
	}
	return s.Seen.TLS != nil || s.Seen.StartTLS == policy.NotOffered && !s.Seen.Plain
}

// NotePending reads why an idle session has something pending, and notes what that tells
// of the address: that it hangs up right after a message, or answers out of step. A host
// may say 421, or hang up later, at any time.
func (s *Session) NotePending() {
	rep, err := s.Read(10 * time.Millisecond)
	switch {
	case wire.IsClosed(err) && s.Carried > 0 && time.Since(s.IdleSince) < ColdAfter:
		s.client.Peers.HungUp(s.Target.Addr)
	case err == nil && rep.Code != 421:
		s.client.Peers.StepByStep(s.Target.Addr)
	}
}
