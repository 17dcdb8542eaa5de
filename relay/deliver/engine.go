package deliver

import (
	"context"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/deliver/pool"
	"tlsrelay/relay/deliver/smtp"
	"tlsrelay/relay/deliver/smtp/handshake"
	"tlsrelay/relay/deliver/smtp/wire"
	"tlsrelay/relay/resolve"
)

// Engine delivers. Its methods are safe for concurrent use.
type Engine struct {
	o            Options
	router       Router
	log          *zap.Logger
	pool         *pool.Pool
	client       *smtp.Client
	gates        gates
	metrics      *metrics
	ehlo         string       // argument of EHLO; "": the address literal of each connection
	nameRefusers *peer.Recent // addresses that refuse it, and that the log has named lately
}

// New makes an engine. Nothing runs until Run. log and reg may be nil.
func New(o Options, router Router, log *zap.Logger, reg prometheus.Registerer) *Engine {
	if log == nil {
		log = zap.NewNop()
	}
	o = o.withDefaults()
	p := pool.New(o.MaxConnections, o.MaxPerHost, o.IdleTimeout)
	return &Engine{
		o: o, router: router, log: log, pool: p, metrics: newMetrics(reg, p, o),
		client: &smtp.Client{
			Clocks: wire.Clocks{Connect: o.ConnectTimeout, Handshake: o.HandshakeTimeout, Reply: o.CommandTimeout},
			Roots:  o.Roots, MinVersion: o.OpportunisticMinVersion, MaxMessages: o.MaxMessages, Ignored: o.ignored,
			Profiles: handshake.NewProfiles(), Log: log,
		},
		ehlo: smtp.Qualified(o.Hostname), nameRefusers: peer.NewRecent(nameLoggedFor),
	}
}

// Run closes sessions that were idle too long, and stops attempts whose demands have
// changed, until ctx ends; then it closes all idle sessions. Sessions at work close when
// they are done.
func (e *Engine) Run(ctx context.Context) error {
	tick := time.NewTicker(max(e.o.IdleTimeout/2, time.Millisecond))
	defer tick.Stop()
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	for {
		select {
		case <-tick.C:
			e.pool.Reap()
		case <-ask.C:
			e.gates.ask()
		case <-ctx.Done():
			e.pool.Close()
			return nil
		}
	}
}

// Deliver makes one attempt at the waiting recipients of job. It tries every host that has
// to be tried, and the result says what became of each recipient and why. When ctx ends,
// Deliver closes what is open and defers the rest without evidence. When job.Opening ends,
// it does so with connections that have not come to MAIL.
func (e *Engine) Deliver(ctx context.Context, job Job) relay.Result {
	begin := time.Now()
	demands := job.Message.Demands(job.Sender)
	looking, done := beforeMail(ctx, &job)
	defer done()
	route, failure := e.route(looking, job.Delivery.Lane.Destination, demands)
	if failure != nil {
		job.Delivery.History = job.Delivery.History.Under(demands) // as policy.Conclude does
		r := relay.FailAll(job.Delivery, *failure, begin)
		r.Cut = looking.Err() != nil
		e.metrics.delivery(r)
		return r
	}
	a := newAttempt(ctx, e, route, demands)
	a.carry(&job)
	a.begin = begin
	a.gate = &gate{job: &job, began: begin, asked: begin} // when the demands were those of job
	a.mail.Gate = a.gate
	e.gates.add(a.gate)
	a.run()
	e.gates.remove(a.gate)
	r := a.result(begin)
	e.metrics.delivery(r)
	return r
}

// route finds the hosts of a destination. If the sender demands that signed DNS names
// them, and it is not known yet whether the resolver validates, that is a temporary
// failure: nothing was seen that speaks against the destination.
func (e *Engine) route(ctx context.Context, destination string, d policy.Demands) (resolve.Route, *relay.Failure) {
	route, f := e.router.Route(ctx, destination)
	if f == nil && route.Unproven && d.NeedsAuthenticMX() {
		f = failure(relay.Temporary, relay.ReachDestination, events.DNSFail, "4.4.3", "the resolver's DNSSEC validation could not be tested yet")
	}
	return route, f
}

// key gives the target for an address of a host; ok is false when no source address of
// ours is of its family. It is the only place that makes one.
func (e *Engine) key(h resolve.Host, addr netip.AddrPort) (k smtp.Target, ok bool) {
	if addr.Port() == 0 {
		addr = netip.AddrPortFrom(addr.Addr(), uint16(e.o.Port))
	}
	src, ok := e.source(addr.Addr())
	return smtp.Target{Host: h.Name, Endpoint: handshake.Endpoint{ServerName: h.SNI, Addr: addr, Source: src}, EHLO: e.ehlo}, ok
}

// source picks the local address to dial a from. It is always the same one for the same
// address, so that sessions and tickets can be used again.
func (e *Engine) source(a netip.Addr) (netip.Addr, bool) {
	var same []netip.Addr
	for _, s := range e.o.SourceAddresses {
		if s.Unmap().Is4() == a.Unmap().Is4() {
			same = append(same, s)
		}
	}
	switch {
	case len(e.o.SourceAddresses) == 0:
		return netip.Addr{}, true
	case len(same) == 0:
		return netip.Addr{}, false
	}
	sum := 0
	for _, b := range a.As16() {
		sum = sum*31 + int(b)
	}
	return same[uint(sum)%uint(len(same))], true
}

// nameLoggedFor is how long the log does not name again an address that refuses our name,
// as it does on every connection.
const nameLoggedFor = time.Hour

// nameRefused warns the operator: it is for him to give the relay a better name.
func (e *Engine) nameRefused(k smtp.Target, seen smtp.Observation) {
	if e.nameRefusers.Note(k.Addr) {
		e.log.Warn("a host refuses the name that this relay gives in EHLO", zap.String("host", k.Host),
			zap.Stringer("address", k.Addr), zap.String("name", k.Name(seen.Local)), zap.Stringer("reply", seen.Reply))
	}
}

// open opens a session with an address of h, and tells metrics and log of it.
func (e *Engine) open(ctx context.Context, h *host, k smtp.Target, m smtp.OpenOptions) (*smtp.Session, smtp.Observation) {
	s, seen := e.client.Open(ctx, k, h.decision, m)
	e.metrics.connection(seen)
	if seen.Verdict.Reason == events.NameRefused {
		e.nameRefused(k, seen)
	}
	return s, seen
}
