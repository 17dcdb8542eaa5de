package deliver

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
)

// session is an open SMTP session that could carry MAIL.
type session struct {
	*conn
	key   target
	local netip.Addr
	ext   extensions

	seen  policy.Observed // at StageReady; the certificate is completed per message
	facts certFacts
	names []string // the reference names that cert was completed for
	cert  policy.Certificate

	opened, idle time.Time
	inTurn       time.Time // when it was last used because its host's turn had come
	mails        int       // transactions begun
	carried      int       // messages taken
	barren       int       // transactions in a row that served nobody
	limit, most  int       // messages it may carry, as the address has shown and as configured; 0: any number
	reused       bool      // came out of the pool
	cold         bool      // idle for so long that the host may have hung up by now
	unclean      bool      // a transaction is open: RSET first
	broken       bool      // out of step or closed: good for nothing more
	hungUp       bool      // it said 421

	ehlo   string // our name, as EHLO gives it
	client *client
}

// target is whom a session is with, and as whom we speak to it. Two messages whose
// targets differ share no session, whatever they demand.
type target struct {
	host string // as the MX record names it
	endpoint
	ehlo string // our name in EHLO; "": the address literal of the connection
}

// coldAfter is how long a session may have been idle to be trusted with a
// message before the host has said a word. It is long enough for the sessions
// of a busy destination, and shorter than any host's patience.
const coldAfter = time.Second

// maxBarren is how many transactions in a row may serve nobody. Hosts slow a
// session down, or end it, that does nothing but ask for unknown recipients.
const maxBarren = 3

// count takes a finished transaction into account.
func (s *session) count(served bool) {
	if !served {
		s.barren++
		return
	}
	s.carried++
	s.barren = 0
}

// spent reports whether the session carries no more messages: by what the host
// said in LIMITS (RFC 9422 §4), by what it has shown, or by how it was treated.
func (s *session) spent() bool {
	for _, most := range [...]int{s.ext.mailMax, s.limit, s.most} {
		if most > 0 && s.mails >= most {
			return true
		}
	}
	return s.broken || s.barren >= maxBarren
}

// appendEHLO writes EHLO, as it was said when the session began.
func (s *session) appendEHLO(b []byte) []byte {
	return append(append(append(b, "EHLO "...), s.ehlo...), "\r\n"...)
}

// observed gives what was seen of the session, as a message with these
// reference names sees it. The names differ by recipient domain, so a reused
// session is looked at anew (tls-policy §9).
func (s *session) observed(names []string) policy.Observed {
	o := s.seen
	if o.TLS == nil {
		return o
	}
	now := time.Now()
	if s.names == nil || !slices.Equal(s.names, names) || now.After(s.cert.NotAfter) {
		s.names, s.cert = names, s.facts.judgeFor(names, now)
	}
	t := *o.TLS
	t.Cert = s.cert
	o.TLS = &t
	return o
}

// reuse notes that the session comes out of the pool.
func (s *session) reuse() { s.reused, s.cold = true, time.Since(s.idle) >= coldAfter }

// peer gives what is known of the address now.
func (s *session) peer() peer { return s.client.peers.get(s.key.addr) }

// oneMore reports whether the address takes no more than one message over a
// connection.
func (s *session) oneMore() bool { return s.peer().messages(time.Now()) == 1 }

// stepByStep reports whether the address has answered out of step lately.
func (s *session) stepByStep() bool { return time.Now().Before(s.peer().outOfStep) }

// lost puts into o what a session shows that broke off at MAIL or after it, and
// gives our text for it.
func (s *session) lost(o *policy.Observed, err error) relay.Reply {
	o.Stage = policy.StageMail
	o.Fault, o.Alert = faultOf(err, false)
	o.Fault = cmp.Or(o.Fault, policy.Closed)
	return relay.Reply{Text: errorText(err, s.key.addr)}
}

// poolable reports whether other messages may use the session. In clear that
// is so only where the host has no STARTTLS: a session of phase 2 would keep
// TLS from messages after this one.
func (s *session) poolable() bool {
	if s.spent() {
		return false
	}
	return s.seen.TLS != nil || s.seen.StartTLS == policy.NotOffered && !s.seen.Plain
}

// left finds out why an idle session has something to be read. A host may say 421
// or hang up at any time; if it does so right after each message, that is to be
// known, and so is one that says more than it was asked.
func (s *session) left() {
	rep, err := s.read(10 * time.Millisecond)
	switch {
	case isClosed(err) && s.carried > 0 && time.Since(s.idle) < coldAfter:
		s.client.peers.hungUp(s.key.addr)
	case err == nil && rep.code != 421:
		s.client.peers.stepByStep(s.key.addr)
	}
}
