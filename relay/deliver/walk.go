package deliver

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/resolve"
)

// Bounds of one walk (tls-policy §3). What is left out counts as unreachable.
const (
	maxHosts     = 10
	maxAddresses = 20
)

// walk is one pass over the hosts of a destination, with or without a message.
type walk struct {
	ctx   context.Context
	e     *Engine
	job   *Job // nil: a probe
	mail  mailObject
	rcpts []recipient
	// letter is what a probe has in place of a message, and heard what MAIL came to
	// for it at each host that answered; nil: it was taken.
	letter relay.Message
	heard  []*relay.Failure
	// demands are those on every host; what is known of one is not looked at.
	demands policy.Demands
	hosts   []*host
	begin   time.Time
	hist    policy.History
	dials   int
	visits  int
	agains  int  // connections opened because the one before was at its end
	worn    int  // messages that the session before this one had carried
	stop    bool // nothing more may be tried: the end was sent without an answer
	gate    *gate
	crowded string // nor may it for want of a connection to this host, or address

	evidence  []relay.HostEvidence
	sightings []events.Session // one per evidence
	trouble   bool             // 421 or a lost connection
	tampered  map[netip.AddrPort]bool
	noTicket  map[netip.AddrPort]bool            // a session ticket broke a session with it
	probed    map[netip.AddrPort]policy.Observed // what asking for its versions showed
}

// host is one host of the walk.
type host struct {
	resolve.Host
	decision policy.Decision
	verdicts []policy.Verdict // one per address tried
	clear    []netip.AddrPort // addresses that phase 2 may try
	words    relay.Reply      // the last of them
	served   bool             // it answered for every recipient it was asked about
	asked    bool             // it answered MAIL of a probe
	refused  *relay.Failure   // in that answer; nil: it did not
	full     int              // 1: every address had all the connections it may have when the walk came to it
}

func newWalk(ctx context.Context, e *Engine, route resolve.Route, demands policy.Demands) *walk {
	w := &walk{ctx: ctx, e: e, demands: demands, begin: time.Now(), hosts: make([]*host, len(route.Hosts))}
	for i, h := range route.Hosts {
		w.hosts[i] = &host{Host: h, decision: demands.On(h.Facts)}
	}
	return w
}

// carry gives the walk its message.
func (w *walk) carry(job *Job) {
	w.job, w.hist = job, job.Delivery.History
	last := job.Delivery.Last
	w.mail = mailObject{message: &job.Message, body: job.Body, doubted: last != nil && last.Reason == events.ReplyMixed}
	open := job.Delivery.Waiting()
	w.rcpts = make([]recipient, len(open))
	for i, n := range open {
		w.rcpts[i].Recipient = &job.Delivery.Recipients[n]
	}
}

// run walks: an idle session first, then every host with TLS, then in clear.
func (w *walk) run() {
	if w.job != nil {
		w.reuse()
		w.roomFirst()
	}
	for i, h := range w.hosts {
		if i < maxHosts && !w.done() {
			w.phase1(h)
		}
	}
	for _, h := range w.hosts {
		w.phase2(h)
	}
}

// done reports whether nobody waits any more, or nothing more may be done. A
// walk that has taken too long stops where it is.
func (w *walk) done() bool {
	if w.stop || w.interrupted() || time.Since(w.begin) > w.e.client.attemptWithin() {
		return true
	}
	if w.job == nil {
		return false
	}
	for i := range w.rcpts {
		if !w.rcpts[i].settled {
			return false
		}
	}
	return true
}

// interrupted reports whether no connection may be opened any more.
func (w *walk) interrupted() bool {
	return w.gate.isShut() || w.crowded != "" || w.ctx.Err() != nil || w.job != nil && w.job.Opening != nil && w.job.Opening.Err() != nil
}

// beforeMail gives the context of what comes before MAIL: it ends with ctx and with
// job.Opening. A nil job is a probe's.
func beforeMail(ctx context.Context, job *Job) (until context.Context, done func()) {
	if job == nil || job.Opening == nil {
		return ctx, func() {}
	}
	until, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(job.Opening, cancel)
	return until, func() { stop(); cancel() }
}

// opening gives the context of a connection on its way: beforeMail's, which a
// change of the demands ends as well.
func (w *walk) opening() (until context.Context, done func()) {
	until, end := beforeMail(w.ctx, w.job)
	if w.gate == nil {
		return until, end
	}
	until, cancel := context.WithCancel(until)
	w.gate.waits(nil, cancel)
	return until, func() { w.gate.waits(nil, nil); cancel(); end() }
}

// betterGone is how long a session with a worse host, used in its turn, tells that
// the better ones were not to be had.
const betterGone = 30 * time.Second

// reuse looks for an idle session to any host of the route, the preferred
// first, that is good enough for this message. A host of a lower preference is
// not used for longer than a moment without asking the others first (RFC 5321
// §5.1); after that it comes in its turn.
func (w *walk) reuse() {
	for i, h := range w.hosts {
		best := h.Preference == w.hosts[0].Preference
		// In clear only in its turn: a better host may have TLS by now.
		usable := func(s *session) bool {
			return (i == 0 || s.seen.TLS != nil) && (best || time.Since(s.inTurn) < betterGone) && h.usable(s)
		}
		for _, addr := range h.Addrs {
			k, ok := w.e.key(h.Host, addr)
			if !ok {
				continue
			}
			for !w.done() && !h.served {
				s := w.e.pool.take(k, usable)
				if s == nil {
					break
				}
				w.visit(h, s, w.recognise(h, s))
			}
		}
	}
}

// roomFirst puts those of equal hosts, and of the addresses of a host, first that
// may have another connection, so that nobody waits for one beside them.
func (w *walk) roomFirst() {
	if w.done() || len(w.hosts) == 0 || len(w.hosts) == 1 && len(w.hosts[0].Addrs) < 2 {
		return
	}
	for _, h := range w.hosts {
		full := func(addr netip.AddrPort) int {
			if k, ok := w.e.key(h.Host, addr); ok && w.e.pool.crowded(k) != "" {
				return 1
			}
			return 0
		}
		if len(h.Addrs) > 0 && full(h.Addrs[0]) == 1 {
			h.Addrs = slices.Clone(h.Addrs) // others go the same route
			slices.SortStableFunc(h.Addrs, func(a, b netip.AddrPort) int { return full(a) - full(b) })
			h.full = full(h.Addrs[0])
		}
	}
	slices.SortStableFunc(w.hosts, func(a, b *host) int {
		return cmp.Or(cmp.Compare(a.Preference, b.Preference), a.full-b.full)
	})
}

// usable reports whether an idle session meets this host's decision, and was
// opened as one for it could have been.
func (h *host) usable(s *session) bool {
	if t := s.seen.TLS; t != nil && !h.decision.Opportunistic() && onlyWide(t.Cipher) {
		return false
	}
	v := h.decision.Judge(s.observed(h.decision.Names))
	return v.Action == policy.Proceed && v.Class == policy.OK
}

// recognise gives what a reused session shows, as if it had just been opened.
func (w *walk) recognise(h *host, s *session) sighting {
	s.reuse()
	w.e.metrics.reused.Inc()
	o := s.observed(h.decision.Names)
	return sighting{observed: o, verdict: h.decision.Judge(o), local: s.local}
}

// phase1 tries the addresses of h with TLS until one of them has answered for
// the message.
func (w *walk) phase1(h *host) {
	if h.served {
		return
	}
	if h.Failure != nil {
		h.words = h.Failure.Reply
		h.verdicts = append(h.verdicts, policy.Verdict{
			Row: "A1", Action: policy.Next, Class: policy.Unreachable, Reason: h.Failure.Reason,
		})
	}
	for _, addr := range h.Addrs {
		if w.done() || w.dials >= maxAddresses || h.served {
			return
		}
		if k, ok := w.e.key(h.Host, addr); ok {
			w.dials++
			w.address(h, k)
		}
	}
}

// phase2 tries h again in clear, where its verdict allows that. Only an
// opportunistic decision ever gives such a verdict.
func (w *walk) phase2(h *host) {
	merged := policy.Merge(h.Name, h.verdicts)
	if h.served || !merged.ClearLater || !h.decision.Opportunistic() || !w.needsClear() {
		return
	}
	for _, addr := range h.clear {
		if w.done() || h.served {
			return
		}
		if w.tampered[addr] {
			continue
		}
		k, _ := w.e.key(h.Host, addr)
		s, seen, err := w.connect(h, k, manner{plain: true})
		switch {
		case err != nil:
			w.discard(s)
			return
		case s != nil:
			w.e.metrics.plaintext.Inc()
			w.visit(h, s, seen)
		default:
			h.verdicts = append(h.verdicts, seen.verdict)
		}
	}
}

// needsClear reports whether phase 1 left something for phase 2: nothing was
// delivered or, in a probe, would have been.
func (w *walk) needsClear() bool {
	for i := range w.rcpts {
		if r := &w.rcpts[i]; r.settled && r.outcome.Failure == nil {
			return false
		}
	}
	return !slices.ContainsFunc(w.heard, decides)
}

// connect gives a session to an address, idle or new, or none with the
// verdict why. err is set when the walk was cut short; a session is good for
// nothing then.
func (w *walk) connect(h *host, k target, m manner) (*session, sighting, error) {
	usable := h.usable
	if w.job == nil || m.plain || m.fresh || m.hello == policy.NoSNIHello {
		usable = fresh
	}
	ctx, done := w.opening()
	defer done()
	for tries := 1; ; tries++ {
		s, err := w.e.pool.acquireWithin(ctx, k, usable, w.patience())
		if err != nil {
			var full *crowdedError
			if errors.As(err, &full) {
				w.crowded = full.place
			}
			return nil, sighting{}, err
		}
		if s != nil {
			s.inTurn = time.Now()
			return s, w.recognise(h, s), nil
		}
		s, seen := w.open(ctx, h, k, m)
		err = ctx.Err()
		if s != nil {
			w.e.pool.opened(k)
			return s, seen, err
		}
		crowded := seen.turnedAway() && w.e.pool.turnedAway(k, tries > 1)
		w.e.pool.release(k, false)
		if crowded && err == nil && tries < maxTurnedAway {
			w.e.metrics.crowded.Inc()
			continue // as many as the host takes are open: that is no evidence
		}
		if err == nil {
			w.record(h, k, seen)
		}
		return nil, seen, err
	}
}

// patience is how long the walk waits for a connection that others have.
func (w *walk) patience() time.Duration {
	if w.job == nil {
		return 0
	}
	return w.job.Patience
}

// maxTurnedAway is how often a host may refuse one connection of an attempt
// because others of ours are open.
const maxTurnedAway = 3

// discard closes a session that the walk has no use for.
func (w *walk) discard(s *session) {
	if s != nil {
		s.close()
		w.e.pool.release(s.key, true)
	}
}

// record keeps what a connection showed.
func (w *walk) record(h *host, k target, seen sighting) {
	o, v := seen.observed, seen.verdict
	if seen.noRoute {
		return
	}
	h.words = seen.reply
	w.e.metrics.verdict(v)
	w.evidence = append(w.evidence, relay.HostEvidence{
		Host: h.Name, Address: k.addr.String(), Stage: o.Stage, Hello: o.Hello, Plain: o.Plain,
		Verdict: v, TLS: o.TLS, MXAuth: h.decision.MX, Reply: seen.reply.String(),
	})
	w.sightings = append(w.sightings, eventSession(h.Name, seen))
}

// eventSession is what events tell of a connection.
func eventSession(name string, seen sighting) events.Session {
	s := events.Session{Host: name}
	if seen.local.IsValid() {
		s.LocalIP = seen.local.String()
	}
	if t := seen.observed.TLS; t != nil {
		s.TLSVersion, s.CipherName, s.CertErr = t.Version.String(), t.Cipher, !t.Cert.Valid()
	}
	return s
}
