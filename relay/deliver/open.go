package deliver

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
)

// observation is what one connection showed and the verdict on it.
type observation struct {
	observed    policy.Observed
	verdict     policy.Verdict
	reply       relay.Reply   // the host's last reply, or what the network said
	local       netip.Addr    // of the connection; zero: there was none
	took        time.Duration // the handshake; zero: there was none
	noRoute     bool          // the address cannot be dialled from here: no evidence
	connRefused bool          // the host refused the connection itself
}

// turnedAway reports whether the host took no connection: it refused it, or left
// at the greeting.
func (s observation) turnedAway() bool {
	o := s.observed
	return s.connRefused || o.Stage == policy.StageGreeting && (o.Code == 421 || o.Fault == policy.Closed)
}

// client opens sessions. Its methods are safe for concurrent use.
type client struct {
	clocks
	roots       *x509.CertPool             // trusted roots; nil: the system's
	minVersion  policy.Version             // where no demand names one
	maxMessages int                        // that one connection carries; 0: as many as the host allows
	ignored     func(host string) []string // EHLO keywords of a host not to believe, in capitals
	profiles    *profiles
	peers       peers
	log         *zap.Logger
}

// openOptions is how to open a session.
type openOptions struct {
	hello    policy.Hello
	plain    bool // phase 2: leave STARTTLS alone
	noTicket bool // offer no session ticket
}

// opening is a session on its way.
type opening struct {
	c *client
	d policy.Decision
	m openOptions
	s *session
	observation
	asked bool // the host requested a client certificate
}

// open dials and goes as far as the decision allows. The session is nil
// unless the verdict says Proceed. The connection is closed when ctx ends.
func (c *client) open(ctx context.Context, k target, d policy.Decision, m openOptions) (*session, observation) {
	now := time.Now()
	o := &opening{c: c, d: d, m: m, s: &session{key: k, opened: now, inTurn: now, client: c, most: c.maxMessages}}
	o.observed = policy.Observed{Stage: policy.StageConnect, Plain: m.plain}
	if !o.dial(ctx) {
		return nil, o.observation
	}
	stop := o.s.whileOpen(ctx)
	defer stop()
	if o.greet() && o.ehlo() && o.startTLS() && o.handshake() && o.ehloTLS() {
		o.ready()
	}
	if o.verdict.Action == policy.Proceed {
		return o.s, o.observation
	}
	if o.observed.Fault == policy.NoFault && !o.observed.Injected {
		o.s.quit()
	} else {
		o.s.close()
	}
	return nil, o.observation
}

// leave has the verdict given on what was seen so far.
func (o *opening) leave() bool {
	o.verdict = o.d.Judge(o.observed)
	return false
}

// fail leaves on an error that was no reply.
func (o *opening) fail(err error) bool {
	o.observed.Fault, o.observed.Alert = faultOf(err, o.asked)
	if o.observed.Stage != policy.StageHandshake {
		o.observed.Fault = cmp.Or(o.observed.Fault, policy.Closed)
	}
	return o.stumble(err)
}

// stumble leaves with our text for an error; the log has Go's.
func (o *opening) stumble(err error) bool {
	o.c.log.Debug("connection failed", zap.Stringer("address", o.s.key.addr),
		zap.String("stage", string(o.observed.Stage)), zap.Error(err))
	o.reply = relay.Reply{Text: errorText(err, o.s.key.addr)}
	return o.leave()
}

// refuse leaves on a reply.
func (o *opening) refuse(r reply) bool {
	o.observed.Code, o.observed.Mixed, o.reply = r.code, r.differs, r.export()
	return o.leave()
}

func (o *opening) dial(ctx context.Context) bool {
	dialer := net.Dialer{Timeout: o.c.connect}
	if src := o.s.key.source; src.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
	}
	raw, err := dialer.DialContext(ctx, "tcp", o.s.key.addr.String())
	if err != nil {
		o.observed.Fault, o.noRoute = policy.NoConnect, noRoute(err)
		o.connRefused = errors.Is(err, syscall.ECONNREFUSED) || isClosed(err)
		return o.stumble(err)
	}
	if local, ok := raw.LocalAddr().(*net.TCPAddr); ok {
		o.local = local.AddrPort().Addr().Unmap()
		o.s.local = o.local
	}
	o.s.ehlo = o.s.key.name(o.local)
	o.s.conn = newConn(raw, o.c.reply)
	return true
}

func (o *opening) greet() bool {
	o.observed.Stage = policy.StageGreeting
	rep, err := o.s.read(o.c.reply)
	switch {
	case err != nil:
		return o.fail(err)
	case !rep.positive():
		return o.refuse(rep)
	case rep.code != 220:
		return o.fail(errReply)
	}
	if o.s.most == 0 && namesExim(rep.text) {
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
	o.observed.Stage = policy.StageEHLO
	rep, err := o.s.command("EHLO " + o.s.ehlo)
	switch {
	case err != nil:
		return o.fail(err)
	case rep.code == 250 && !rep.differs:
		o.s.ext = parseExtensions(rep, o.c.ignored(o.s.key.host))
		o.observed.StartTLS = o.s.ext.startTLS
		return true
	case rep.positive() && !rep.differs:
		return o.fail(errReply) // the answer to something else
	}
	o.refuse(rep)
	return o.verdict.Action == policy.SayHELO && o.helo()
}

func (o *opening) helo() bool {
	o.observed.HELO, o.observed.Code = true, 0
	rep, err := o.s.command("HELO " + o.s.ehlo)
	switch {
	case err != nil:
		return o.fail(err)
	case rep.code == 250 && !rep.differs:
		o.observed.StartTLS = policy.NotOffered
		return true
	case rep.positive() && !rep.differs:
		return o.fail(errReply)
	}
	return o.refuse(rep)
}

// startTLS asks for TLS where it is offered and wanted, and goes straight to
// ready where not.
func (o *opening) startTLS() bool {
	if o.m.plain || o.observed.StartTLS != policy.Offered {
		o.ready()
		return false
	}
	o.observed.Stage = policy.StageStartTLS
	if o.s.unread() {
		// More than the answer to EHLO: whatever comes next is out of step,
		// and could be taken for the 220 (B5).
		o.observed.Injected = true
		return o.leave()
	}
	rep, err := o.s.command("STARTTLS")
	switch {
	case err != nil:
		return o.fail(err)
	case rep.code == 220 && o.s.unread():
		o.observed.Injected = true
		return o.refuse(rep)
	case rep.code != 220 || rep.differs:
		return o.refuse(rep)
	}
	return true
}

func (o *opening) handshake() bool {
	o.observed.Stage, o.observed.Hello = policy.StageHandshake, o.m.hello
	cfg, tickets := o.c.profiles.config(profileFor(o.d, o.m.hello, o.c.minVersion), o.s.key.endpoint, !o.m.noTicket)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		o.asked = true
		return &tls.Certificate{}, nil // none: what the host makes of that is row C5
	}
	// Runs on resumed sessions too, unlike VerifyPeerCertificate (§10.5).
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		o.achieved(cs)
		return nil
	}
	begin := time.Now()
	err := o.s.startTLS(cfg, o.c.handshake)
	o.took = time.Since(begin)
	o.observed.Ticket = tickets != nil && tickets.offered != nil
	if err != nil {
		return o.fail(err)
	}
	if tickets != nil {
		tickets.worked(o.s.seen.TLS)
	}
	o.observed.TLS = o.s.seen.TLS
	if o.m.hello == policy.ProbeHello {
		return o.leave()
	}
	return true
}

// achieved records what the handshake came to.
func (o *opening) achieved(cs tls.ConnectionState) {
	o.s.facts = examine(cs.PeerCertificates, o.c.roots, time.Now())
	o.s.seen.TLS = &policy.Session{
		Version:       policy.Version(cs.Version),
		Cipher:        tls.CipherSuiteName(cs.CipherSuite),
		ForwardSecret: forwardSecret(cs.Version, cs.CipherSuite),
		Resumed:       cs.DidResume,
		Cert:          o.s.facts.judgeFor(o.d.Names, time.Now()),
	}
}

// ehloTLS says EHLO again: what was learned before TLS is void (RFC 3207
// §4.2), and STARTTLS in the new list means nothing (C9, C10).
func (o *opening) ehloTLS() bool {
	o.observed.Stage = policy.StageEHLOTLS
	within := o.c.reply
	if o.observed.Ticket {
		// A resumed session that is silent costs no more than a handshake that is.
		within = min(within, o.c.handshake)
	}
	rep, err := o.s.commandWithin("EHLO "+o.s.ehlo, within)
	switch {
	case err != nil:
		return o.fail(err)
	case !rep.positive() || rep.differs:
		return o.refuse(rep)
	case rep.code != 250:
		return o.fail(errReply)
	}
	o.s.ext = parseExtensions(rep, o.c.ignored(o.s.key.host))
	o.observed.RequireTLS = o.s.ext.requireTLS
	return true
}

// ready has the connection judged as one that could carry MAIL.
func (o *opening) ready() {
	o.observed.Stage = policy.StageReady
	o.s.seen = o.observed
	o.observed = o.s.observed(o.d.Names)
	o.verdict = o.d.Judge(o.observed)
	if t := o.observed.TLS; t != nil && t.Resumed && !o.c.profiles.resumes.has(o.s.key.addr) {
		// Nothing is known of its resumed sessions yet: let it say a word first.
		o.s.cold = true
	}
}
