// From a 250 to the block event, 5 of 10: this file opens one connection, and notes
// what the host shows of its TLS. Next: policy/judge.go.

package smtp

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/deliver/smtp/handshake"
	"tlsrelay/relay/deliver/smtp/wire"
)

// Observation is what one connection showed and the verdict on it. Judge reads Observed
// alone; the rest is for the evidence, the metrics and the pool.
type Observation struct {
	Observed    policy.Observed
	Verdict     policy.Verdict
	Reply       relay.Reply   // the host's last reply, or what the network said
	Local       netip.Addr    // of the connection; zero: there was none
	Took        time.Duration // how long the handshake was; zero: there was none
	NoRoute     bool          // the address cannot be dialled from here: no evidence
	connRefused bool          // the host refused the connection itself
}

// TurnedAway reports whether the host took no connection: it refused it, or instead of a
// greeting it hung up or said 421.
func (s Observation) TurnedAway() bool {
	o := s.Observed
	return s.connRefused || o.Stage == policy.StageGreeting && (o.Code == 421 || o.Fault == policy.Closed)
}

// Client opens sessions. Its methods are safe for concurrent use.
type Client struct {
	wire.Clocks
	Roots       *x509.CertPool             // trusted roots; nil: the system's
	MinVersion  policy.Version             // where no demand names one
	MaxMessages int                        // that one connection carries; 0: as many as the host allows
	Ignored     func(host string) []string // EHLO keywords not to believe of a host, in capitals
	Profiles    *handshake.Profiles
	Peers       peer.Memory
	Log         *zap.Logger
}

// OpenOptions are how to open a session.
type OpenOptions struct {
	Hello    policy.Hello // which ClientHello
	Plain    bool         // do not ask for TLS
	NoTicket bool         // offer no session ticket
}

// opening is a session on its way.
type opening struct {
	c *Client
	d policy.Decision
	m OpenOptions
	s *Session
	Observation
	asked bool // the host requested a client certificate
}

// Open dials k and goes as far as the decision allows. The session is nil unless the
// verdict says Proceed. When ctx ends, so does the connection.
//
// Each step returns true if the next one may follow. Where a step ends the way, the
// decision judges what was seen so far (policy/judge.go): in leave, or in ready when the
// next command could be MAIL.
func (c *Client) Open(ctx context.Context, k Target, d policy.Decision, m OpenOptions) (*Session, Observation) {
	now := time.Now()
	o := &opening{c: c, d: d, m: m, s: &Session{Target: k, Opened: now, InTurn: now, client: c, most: c.MaxMessages}}
	o.Observed = policy.Observed{Stage: policy.StageConnect, Plain: m.Plain}
	if !o.dial(ctx) {
		return nil, o.Observation
	}
	stop := o.s.WhileOpen(ctx)
	defer stop()
	if o.greet() && o.ehlo() && o.startTLS() && o.handshake() && o.ehloTLS() {
		o.ready()
	}
	if o.Verdict.Action == policy.Proceed {
		return o.s, o.Observation
	}
	if o.Observed.Fault == policy.NoFault && !o.Observed.Injected {
		o.s.Quit()
	} else {
		o.s.Close()
	}
	return nil, o.Observation
}

// leave asks for the verdict on what was seen so far. It returns false, as the step that
// ends the way does.
func (o *opening) leave() bool {
	o.Verdict = o.d.Judge(o.Observed)
	return false
}

// fail leaves on an error. In the handshake an error without a known fault stays without
// one: it may be anything (row C3). Elsewhere it counts as a lost connection.
func (o *opening) fail(err error) bool {
	o.Observed.Fault, o.Observed.Alert = wire.FaultOf(err, o.asked)
	if o.Observed.Stage != policy.StageHandshake {
		o.Observed.Fault = cmp.Or(o.Observed.Fault, policy.Closed)
	}
	return o.stumble(err)
}

// stumble leaves on an error. The reply has the relay's own words for it, because the
// sender reads them; the log has those of Go.
func (o *opening) stumble(err error) bool {
	o.c.Log.Debug("connection failed", zap.Stringer("address", o.s.Target.Addr),
		zap.String("stage", string(o.Observed.Stage)), zap.Error(err))
	o.Reply = relay.Reply{Text: wire.ErrorText(err, o.s.Target.Addr)}
	return o.leave()
}

// refuse leaves on a reply.
func (o *opening) refuse(r wire.Reply) bool {
	o.Observed.Code, o.Observed.Mixed, o.Reply = r.Code, r.Differs, r.Export()
	return o.leave()
}

func (o *opening) dial(ctx context.Context) bool {
	dialer := net.Dialer{Timeout: o.c.Connect}
	if src := o.s.Target.Source; src.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
	}
	raw, err := dialer.DialContext(ctx, "tcp", o.s.Target.Addr.String())
	if err != nil {
		o.Observed.Fault, o.NoRoute = policy.NoConnect, wire.NoRoute(err)
		o.connRefused = errors.Is(err, syscall.ECONNREFUSED) || wire.IsClosed(err)
		return o.stumble(err)
	}
	if local, ok := raw.LocalAddr().(*net.TCPAddr); ok {
		o.Local = local.AddrPort().Addr().Unmap()
		o.s.Local = o.Local
	}
	o.s.ehlo = o.s.Target.Name(o.Local)
	o.s.Conn = wire.NewConn(raw, o.c.Reply)
	return true
}

func (o *opening) greet() bool {
	o.Observed.Stage = policy.StageGreeting
	rep, err := o.s.Read(o.c.Reply)
	switch {
	case err != nil:
		return o.fail(err)
	case !rep.Positive():
		return o.refuse(rep)
	case rep.Code != 220:
		return o.fail(wire.ErrReply)
	}
	if o.s.most == 0 && namesExim(rep.Text) {
		o.s.most = eximMost
	}
	return true
}

// eximMost is how many messages of one connection Exim delivers at once by
// default (smtp_accept_queue_per_connection); those beyond it wait for its next
// queue run.
const eximMost = 10

// namesExim reports whether a greeting is Exim's: "host ESMTP Exim 4.96 ...".
func namesExim(greeting []byte) bool {
	for word := range bytes.FieldsSeq(greeting) {
		if bytes.EqualFold(word, []byte("Exim")) {
			return true
		}
	}
	return false
}

// ehlo says EHLO in clear, or HELO where the verdict asks for that (A5).
func (o *opening) ehlo() bool {
	o.Observed.Stage = policy.StageEHLO
	rep, err := o.s.Command("EHLO " + o.s.ehlo)
	if !o.accepted(rep, err) {
		return o.Verdict.Action == policy.SayHELO && o.helo()
	}
	o.s.Ext = wire.ParseExtensions(rep, o.c.Ignored(o.s.Target.Host))
	o.Observed.StartTLS = o.s.Ext.StartTLS
	return true
}

func (o *opening) helo() bool {
	o.Observed.HELO, o.Observed.Code = true, 0
	o.Observed.StartTLS = policy.NotOffered
	return o.accepted(o.s.Command("HELO " + o.s.ehlo))
}

// accepted reports whether the reply to EHLO or HELO is the 250 that it should be.
func (o *opening) accepted(rep wire.Reply, err error) bool {
	switch {
	case err != nil:
		return o.fail(err)
	case !rep.Positive() || rep.Differs:
		return o.refuse(rep)
	case rep.Code != 250:
		return o.fail(wire.ErrReply) // the answer to something else
	}
	return true
}

// startTLS asks for TLS if the host offers it and m wants it. If not, the connection is
// ready as it is, in clear: where TLS is demanded, that violates the demand (row A4).
func (o *opening) startTLS() bool {
	if o.m.Plain || o.Observed.StartTLS != policy.Offered {
		o.ready()
		return false
	}
	o.Observed.Stage = policy.StageStartTLS
	if o.s.Unread() {
		// The host has sent more than the answer to EHLO. What it sends next is out
		// of step, and could be taken for the 220 (B5).
		o.Observed.Injected = true
		return o.leave()
	}
	rep, err := o.s.Command("STARTTLS")
	switch {
	case err != nil:
		return o.fail(err)
	case rep.Code == 220 && o.s.Unread():
		o.Observed.Injected = true
		return o.refuse(rep)
	case rep.Code != 220 || rep.Differs:
		return o.refuse(rep)
	}
	return true
}

func (o *opening) handshake() bool {
	o.Observed.Stage, o.Observed.Hello = policy.StageHandshake, o.m.Hello
	cfg, tickets := o.c.Profiles.Config(handshake.ProfileFor(o.d, o.m.Hello, o.c.MinVersion), o.s.Target.Endpoint, !o.m.NoTicket)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		o.asked = true
		return &tls.Certificate{}, nil // none; a host that insists is row C5
	}
	// It runs on resumed sessions too, unlike VerifyPeerCertificate.
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		o.achieved(cs)
		return nil
	}
	begin := time.Now()
	err := o.s.StartTLS(cfg, o.c.Handshake)
	o.Took = time.Since(begin)
	o.Observed.Ticket = tickets != nil && tickets.Offered != nil
	if err != nil {
		return o.fail(err)
	}
	if tickets != nil {
		tickets.Worked(o.s.Seen.TLS)
	}
	o.Observed.TLS = o.s.Seen.TLS
	if o.m.Hello == policy.ProbeHello {
		return o.leave()
	}
	return true
}

// achieved records what the handshake came to. Its certificate may be bad: that ends no
// handshake, for only the decision knows whether it matters.
func (o *opening) achieved(cs tls.ConnectionState) {
	o.s.facts = handshake.Examine(cs.PeerCertificates, o.c.Roots, time.Now())
	o.s.Seen.TLS = &policy.Session{
		Version:       policy.Version(cs.Version),
		Cipher:        tls.CipherSuiteName(cs.CipherSuite),
		ForwardSecret: handshake.ForwardSecret(cs.Version, cs.CipherSuite),
		Resumed:       cs.DidResume,
		Cert:          o.s.facts.For(o.d.Names, time.Now()),
	}
}

// ehloTLS says EHLO again: what the host said before TLS is void (RFC 3207 §4.2), and
// STARTTLS in the new list means nothing.
func (o *opening) ehloTLS() bool {
	o.Observed.Stage = policy.StageEHLOTLS
	within := o.c.Reply
	if o.Observed.Ticket {
		// A host that resumes a session and falls silent may cost no more time than
		// one that is silent in the handshake. So there is time for a connection
		// without the ticket.
		within = min(within, o.c.Handshake)
	}
	rep, err := o.s.CommandWithin("EHLO "+o.s.ehlo, within)
	if !o.accepted(rep, err) {
		return false
	}
	o.s.Ext = wire.ParseExtensions(rep, o.c.Ignored(o.s.Target.Host))
	o.Observed.RequireTLS = o.s.Ext.RequireTLS
	return true
}

// ready asks for the verdict on a connection that could carry MAIL.
func (o *opening) ready() {
	o.Observed.Stage = policy.StageReady
	o.s.Seen = o.Observed
	o.Observed = o.s.Observed(o.d.Names)
	o.Verdict = o.d.Judge(o.Observed)
	if t := o.Observed.TLS; t != nil && t.Resumed && !o.c.Profiles.Resumes.Has(o.s.Target.Addr) {
		// The resumed sessions of this address may break. So no content goes out
		// before it has answered MAIL.
		o.s.cold = true
	}
}
