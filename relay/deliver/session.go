package deliver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// session is an open SMTP session that could carry MAIL.
type session struct {
	*conn
	key   poolKey
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

	ehlo  string // our name, as EHLO gives it
	peers *peers
	gate  *gate // of the attempt that uses it
}

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
		s.peers.hungUp(s.key.addr)
	case err == nil && rep.code != 421:
		s.peers.stepByStep(s.key.addr)
	}
}

// sighting is what one connection showed and the verdict on it.
type sighting struct {
	observed policy.Observed
	verdict  policy.Verdict
	reply    relay.Reply // the host's last words, or the network's
	local    netip.Addr
	noRoute  bool // the address cannot be dialled from here: no evidence
	refused  bool // the host refused the connection itself
}

// turnedAway reports whether the host took no connection: it refused it, or left
// at the greeting.
func (s sighting) turnedAway() bool {
	o := s.observed
	return s.refused || o.Stage == policy.StageGreeting && (o.Code == 421 || o.Fault == policy.Closed)
}

// manner is how to open a session.
type manner struct {
	hello    policy.Hello
	plain    bool // phase 2: leave STARTTLS alone
	fresh    bool // no idle session will do
	noTicket bool // offer no session ticket
}

// opening is a session on its way.
type opening struct {
	e *Engine
	d policy.Decision
	m manner
	s *session
	sighting
	asked bool // the host requested a client certificate
}

// open dials and goes as far as the decision allows. The session is nil
// unless the verdict says Proceed. The connection is closed when ctx ends.
func (e *Engine) open(ctx context.Context, k poolKey, d policy.Decision, m manner) (*session, sighting) {
	now := time.Now()
	o := &opening{e: e, d: d, m: m, s: &session{key: k, opened: now, inTurn: now, peers: &e.peers, most: e.o.MaxMessages}}
	o.observed = policy.Observed{Stage: policy.StageConnect, Plain: m.plain}
	if !o.dial(ctx) {
		return nil, o.sighting
	}
	stop := o.s.whileOpen(ctx)
	defer stop()
	if o.greet() && o.ehlo() && o.startTLS() && o.handshake() && o.ehloTLS() {
		o.ready()
	}
	if o.verdict.Action == policy.Proceed {
		return o.s, o.sighting
	}
	if o.observed.Fault == policy.NoFault && !o.observed.Injected {
		o.s.quit()
	} else {
		o.s.close()
	}
	return nil, o.sighting
}

// leave has the verdict given on what was seen so far.
func (o *opening) leave() bool {
	o.verdict = o.d.Judge(o.observed)
	if o.verdict.Reason == events.NameRefused {
		o.nameRefused()
	}
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

// stumble leaves with our words for an error; the log has its own.
func (o *opening) stumble(err error) bool {
	o.e.log.Debug("connection failed", zap.Stringer("address", o.s.key.addr),
		zap.String("stage", string(o.observed.Stage)), zap.Error(err))
	o.reply = relay.Reply{Text: wordsOf(err, o.s.key.addr)}
	return o.leave()
}

// refuse leaves on a reply.
func (o *opening) refuse(r reply) bool {
	o.observed.Code, o.observed.Mixed, o.reply = r.code, r.differs, r.export()
	return o.leave()
}

func (o *opening) dial(ctx context.Context) bool {
	dialer := net.Dialer{Timeout: o.e.o.ConnectTimeout}
	if src := o.s.key.source; src.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0))
	}
	raw, err := dialer.DialContext(ctx, "tcp", o.s.key.addr.String())
	if err != nil {
		o.observed.Fault, o.noRoute = policy.NoConnect, noRoute(err)
		o.refused = errors.Is(err, syscall.ECONNREFUSED) || isClosed(err)
		return o.stumble(err)
	}
	o.e.metrics.opened.Inc()
	if local, ok := raw.LocalAddr().(*net.TCPAddr); ok {
		o.local = local.AddrPort().Addr().Unmap()
		o.s.local = o.local
	}
	if o.s.ehlo = o.s.key.ehlo; o.s.ehlo == "" {
		o.s.ehlo = literal(o.local)
	}
	o.s.conn = newConn(raw, o.e.o.CommandTimeout)
	return true
}

func (o *opening) greet() bool {
	o.observed.Stage = policy.StageGreeting
	rep, err := o.s.read(o.e.o.CommandTimeout)
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
		o.s.ext = parseExtensions(rep, o.e.o.ignored(o.s.key.host))
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
	if o.s.r.Buffered() > 0 {
		// More than the answer to EHLO: whatever comes next is out of step,
		// and could be taken for the 220 (B5).
		o.observed.Injected = true
		return o.leave()
	}
	rep, err := o.s.command("STARTTLS")
	switch {
	case err != nil:
		return o.fail(err)
	case rep.code == 220 && o.s.r.Buffered() > 0:
		o.observed.Injected = true
		return o.refuse(rep)
	case rep.code != 220 || rep.differs:
		return o.refuse(rep)
	}
	return true
}

func (o *opening) handshake() bool {
	o.observed.Stage, o.observed.Hello = policy.StageHandshake, o.m.hello
	cfg, tickets := o.e.hellos.config(profileFor(o.d, o.m, o.e.o.OpportunisticMinVersion), o.s.key, !o.m.noTicket)
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
	o.s.raw.SetDeadline(begin.Add(o.e.o.HandshakeTimeout))
	t := tls.Client(&o.s.wire, cfg)
	err := t.Handshake()
	o.e.metrics.handshake(o.m.hello, o.s.seen.TLS, time.Since(begin), err)
	o.observed.Ticket = tickets != nil && tickets.offered != nil
	if err != nil {
		return o.fail(err)
	}
	if tickets != nil {
		tickets.worked(o.s.seen.TLS)
	}
	o.s.raw.SetDeadline(time.Time{})
	o.observed.TLS = o.s.seen.TLS
	o.s.secure(t)
	if o.m.hello == policy.ProbeHello {
		return o.leave()
	}
	return true
}

// achieved records what the handshake came to.
func (o *opening) achieved(cs tls.ConnectionState) {
	o.s.facts = examine(cs.PeerCertificates, o.e.o.Roots, time.Now())
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
	if o.observed.Ticket {
		// A resumed session that is silent costs no more than a handshake that is.
		usual := o.s.timeout
		o.s.timeout = min(usual, o.e.o.HandshakeTimeout)
		defer func() { o.s.timeout = usual }()
	}
	rep, err := o.s.command("EHLO " + o.s.ehlo)
	switch {
	case err != nil:
		return o.fail(err)
	case !rep.positive() || rep.differs:
		return o.refuse(rep)
	case rep.code != 250:
		return o.fail(errReply)
	}
	o.s.ext = parseExtensions(rep, o.e.o.ignored(o.s.key.host))
	o.observed.RequireTLS = o.s.ext.requireTLS
	return true
}

// ready has the connection judged as one that could carry MAIL.
func (o *opening) ready() {
	o.observed.Stage = policy.StageReady
	o.s.seen = o.observed
	o.observed = o.s.observed(o.d.Names)
	o.verdict = o.d.Judge(o.observed)
}
