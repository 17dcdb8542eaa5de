// From a 250 to the block event, 4 of 10: this file goes through the hosts of a
// destination, one after another. Next: relay/deliver/smtp/open.go.

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
	"tlsrelay/relay/deliver/pool"
	"tlsrelay/relay/deliver/smtp"
	"tlsrelay/relay/deliver/smtp/handshake"
	"tlsrelay/relay/resolve"
)

// Bounds of one attempt. Hosts and addresses beyond them count as unreachable.
const (
	maxHosts     = 10
	maxAddresses = 20
)

// attempt is one pass over the hosts of a destination, with or without a message.
type attempt struct {
	ctx   context.Context
	e     *Engine
	job   *Job // nil: a probe
	mail  smtp.Mail
	rcpts []recipient
	// mailAnswers has an entry for each host that answered MAIL of a probe; nil: the host
	// accepted it.
	mailAnswers []*relay.Failure
	// demands are the same for all hosts. host.decision is what they come to for one host.
	demands  policy.Demands
	hosts    []*host
	begin    time.Time
	patience time.Duration // Job.Patience
	hist     policy.History
	dials    int    // addresses tried, at most maxAddresses
	sessions int    // sessions used
	agains   int    // connections opened in a row because the one before was at its end
	worn     int    // messages that the session before this one had carried when it was worn out
	stop     bool   // nothing more may be tried: the message may have been accepted
	gate     *gate  // shut when the demands change; nil in a probe
	crowded  string // the host or address that has all its connections: nothing more may be tried

	evidence    []relay.HostEvidence
	connections []events.Session // one per evidence
	trouble     bool             // a host said 421, or a connection was lost
	tampered    map[netip.AddrPort]bool
	noTicket    map[netip.AddrPort]bool            // addresses where a ticket may have broken a session
	probed      map[netip.AddrPort]policy.Observed // what addresses showed when asked for their versions
}

// host is one host of the attempt.
type host struct {
	resolve.Host
	decision    policy.Decision  // what is demanded of this host
	verdicts    []policy.Verdict // one per address tried; conclude weighs them (result.go)
	clear       []netip.AddrPort // addresses that phase 2 may try
	lastReply   relay.Reply
	served      bool           // it answered for every recipient it was asked about
	askedMail   bool           // it answered MAIL of a probe
	mailFailure *relay.Failure // what that answer means for a message; nil: it would be accepted
	full        int            // 1: every address had all the connections it may have when the attempt began
}

func newAttempt(ctx context.Context, e *Engine, route resolve.Route, demands policy.Demands) *attempt {
	a := &attempt{ctx: ctx, e: e, demands: demands, begin: time.Now(), hosts: make([]*host, len(route.Hosts))}
	for i, h := range route.Hosts {
		a.hosts[i] = &host{Host: h, decision: demands.On(h.Facts)}
	}
	return a
}

// carry gives the attempt the message of job.
func (a *attempt) carry(job *Job) {
	a.job, a.hist, a.patience = job, job.Delivery.History, job.Patience
	last := job.Delivery.Last
	a.mail = smtp.Mail{Message: &job.Message, Body: job.Body, Doubted: last != nil && last.Reason == events.ReplyMixed}
	open := job.Delivery.Waiting()
	a.rcpts = make([]recipient, len(open))
	for i, n := range open {
		a.rcpts[i].Recipient = &job.Delivery.Recipients[n]
	}
}

// run makes the attempt: idle sessions first, then every host with TLS (phase 1), then in
// clear where the demands allow that (phase 2). After it, result.go has the verdicts on all
// hosts weighed by policy.Conclude.
func (a *attempt) run() {
	if a.job != nil {
		a.reuse()
		a.roomFirst()
	}
	for i, h := range a.hosts {
		if i < maxHosts && !a.done() {
			a.phase1(h)
		}
	}
	for _, h := range a.hosts {
		a.phase2(h)
	}
}

// done reports whether no recipient waits any more, or nothing more may be tried. An
// attempt that has taken too long stops where it is.
func (a *attempt) done() bool {
	if a.stop || a.interrupted() || time.Since(a.begin) > a.e.client.AttemptWithin() {
		return true
	}
	if a.job == nil {
		return false
	}
	for i := range a.rcpts {
		if !a.rcpts[i].done {
			return false
		}
	}
	return true
}

// interrupted reports whether no connection may be opened any more.
func (a *attempt) interrupted() bool {
	return a.gate.isShut() || a.crowded != "" || a.ctx.Err() != nil || a.job != nil && a.job.Opening != nil && a.job.Opening.Err() != nil
}

// beforeMail gives the context of what comes before MAIL. It ends with ctx and with
// job.Opening; a probe has no job.
func beforeMail(ctx context.Context, job *Job) (until context.Context, done func()) {
	if job == nil || job.Opening == nil {
		return ctx, func() {}
	}
	until, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(job.Opening, cancel)
	return until, func() { stop(); cancel() }
}

// opening gives the context of a connection on its way: that of beforeMail, which a change
// of the demands ends as well.
func (a *attempt) opening() (until context.Context, done func()) {
	until, end := beforeMail(a.ctx, a.job)
	if a.gate == nil {
		return until, end
	}
	until, cancel := context.WithCancel(until)
	a.gate.waits(nil, cancel)
	return until, func() { a.gate.waits(nil, nil); cancel(); end() }
}

// betterGone is how long the hosts before it count as out of reach, once an attempt has
// tried them in vain and gone on to a less preferred host.
const betterGone = 30 * time.Second

// reuse looks for an idle session that is good enough for this message, to the preferred
// hosts first. It uses one to a less preferred host only for betterGone; after that the
// other hosts are asked first (RFC 5321 §5.1).
func (a *attempt) reuse() {
	for i, h := range a.hosts {
		best := h.Preference == a.hosts[0].Preference
		// A session in clear is used only with the first host. With any other, a host
		// before it may have TLS by now.
		usable := func(s *smtp.Session) bool {
			return (i == 0 || s.Seen.TLS != nil) && (best || time.Since(s.InTurn) < betterGone) && h.usable(s)
		}
		for _, addr := range h.Addrs {
			k, ok := a.e.key(h.Host, addr)
			if !ok {
				continue
			}
			for !a.done() && !h.served {
				s := a.e.pool.Take(k, usable)
				if s == nil {
					break
				}
				a.useSession(h, s, a.recognise(h, s))
			}
		}
	}
}

// roomFirst sorts hosts of equal preference, and the addresses of a host: first those that
// may have another connection, so that no message waits while one is free.
func (a *attempt) roomFirst() {
	if a.done() || len(a.hosts) == 0 || len(a.hosts) == 1 && len(a.hosts[0].Addrs) < 2 {
		return
	}
	for _, h := range a.hosts {
		full := func(addr netip.AddrPort) int {
			if k, ok := a.e.key(h.Host, addr); ok && a.e.pool.Crowded(k) != "" {
				return 1
			}
			return 0
		}
		if len(h.Addrs) > 0 && full(h.Addrs[0]) == 1 {
			h.Addrs = slices.Clone(h.Addrs) // other attempts have the same route
			slices.SortStableFunc(h.Addrs, func(p, q netip.AddrPort) int { return full(p) - full(q) })
			h.full = full(h.Addrs[0])
		}
	}
	slices.SortStableFunc(a.hosts, func(p, q *host) int {
		return cmp.Or(cmp.Compare(p.Preference, q.Preference), p.full-q.full)
	})
}

// usable reports whether an idle session meets this host's decision, and whether one
// opened for it could have agreed on the same cipher suite.
func (h *host) usable(s *smtp.Session) bool {
	if t := s.Seen.TLS; t != nil && !h.decision.Opportunistic() && handshake.OnlyWide(t.Cipher) {
		return false
	}
	v := h.decision.Judge(s.Observed(h.decision.Names))
	return v.Action == policy.Proceed && v.Class == policy.OK
}

// recognise gives what a reused session shows, as if it had just been opened.
func (a *attempt) recognise(h *host, s *smtp.Session) smtp.Observation {
	s.Reuse()
	a.e.metrics.reused.Inc()
	o := s.Observed(h.decision.Names)
	return smtp.Observation{Observed: o, Verdict: h.decision.Judge(o), Local: s.Local}
}

// phase1 tries the addresses of h with TLS until one of them has answered for
// the message. address.go opens a connection by connect, and adds the verdict on the
// address to h.verdicts.
func (a *attempt) phase1(h *host) {
	if h.served {
		return
	}
	if h.Failure != nil {
		// Its addresses are not known. That shows nothing of its TLS.
		h.lastReply = h.Failure.Reply
		h.verdicts = append(h.verdicts, policy.Verdict{
			Row: "A1", Action: policy.Next, Class: policy.Unreachable, Reason: h.Failure.Reason,
		})
	}
	for _, addr := range h.Addrs {
		if a.done() || a.dials >= maxAddresses || h.served {
			return
		}
		if k, ok := a.e.key(h.Host, addr); ok {
			a.dials++
			a.address(h, k)
		}
	}
}

// phase2 tries h again in clear if its verdict allows that. Only an opportunistic decision
// gives such a verdict.
func (a *attempt) phase2(h *host) {
	merged := policy.Merge(h.Name, h.verdicts)
	if h.served || !merged.ClearLater || !h.decision.Opportunistic() || !a.needsClear() {
		return
	}
	for _, addr := range h.clear {
		if a.done() || h.served {
			return
		}
		if a.tampered[addr] {
			continue
		}
		k, _ := a.e.key(h.Host, addr)
		s, seen, err := a.connect(h, k, smtp.OpenOptions{Plain: true}, false)
		switch {
		case err != nil:
			a.discard(s)
			return
		case s != nil:
			a.e.metrics.plaintext.Inc()
			a.useSession(h, s, seen)
		default:
			h.verdicts = append(h.verdicts, seen.Verdict)
		}
	}
}

// needsClear reports whether phase 1 left something for phase 2: nothing was
// delivered or, in a probe, would have been.
func (a *attempt) needsClear() bool {
	for i := range a.rcpts {
		if r := &a.rcpts[i]; r.done && r.outcome.Failure == nil {
			return false
		}
	}
	return !slices.ContainsFunc(a.mailAnswers, decides)
}

// connect gives a session with an address, an idle one or a new one. anew leaves out the
// idle ones. Without a session, the verdict says why there is none. A new one comes from
// smtp.Client.Open. An error cuts the attempt short; the caller then discards the session,
// if there is one.
func (a *attempt) connect(h *host, k smtp.Target, m smtp.OpenOptions, anew bool) (*smtp.Session, smtp.Observation, error) {
	usable := h.usable
	if a.job == nil || m.Plain || anew || m.Hello == policy.NoSNIHello {
		usable = pool.Fresh
	}
	ctx, done := a.opening()
	defer done()
	for tries := 1; ; tries++ {
		s, err := a.e.pool.Acquire(ctx, k, usable, a.patience)
		if err != nil {
			var full *pool.CrowdedError
			if errors.As(err, &full) {
				a.crowded = full.Place
			}
			return nil, smtp.Observation{}, err
		}
		if s != nil {
			s.InTurn = time.Now()
			return s, a.recognise(h, s), nil
		}
		s, seen := a.open(ctx, h, k, m)
		err = ctx.Err()
		if s != nil {
			a.e.pool.Opened(k)
			return s, seen, err
		}
		crowded := seen.TurnedAway() && a.e.pool.TurnedAway(k, tries > 1)
		a.e.pool.Release(k, false)
		if crowded && err == nil && tries < maxTurnedAway {
			a.e.metrics.crowded.Inc()
			continue // our other sessions are all that the host allows: no evidence
		}
		if err == nil {
			a.record(h, k, seen)
		}
		return nil, seen, err
	}
}

// maxTurnedAway is how often a host may refuse one connection of an attempt
// because others of ours are open.
const maxTurnedAway = 3

// discard closes a session that nobody can use.
func (a *attempt) discard(s *smtp.Session) {
	if s != nil {
		s.Close()
		a.e.pool.Release(s.Target, true)
	}
}

// record keeps what a connection showed: as evidence, and for the events.
func (a *attempt) record(h *host, k smtp.Target, seen smtp.Observation) {
	o, v := seen.Observed, seen.Verdict
	if seen.NoRoute {
		return
	}
	h.lastReply = seen.Reply
	a.e.metrics.verdict(v)
	a.evidence = append(a.evidence, relay.HostEvidence{
		Host: h.Name, Address: k.Addr.String(), Stage: o.Stage, Hello: o.Hello, Plain: o.Plain,
		Verdict: v, TLS: o.TLS, MXAuth: h.decision.MX, Reply: seen.Reply.String(),
	})
	a.connections = append(a.connections, eventSession(h.Name, seen))
}

// eventSession is what events tell of a connection.
func eventSession(name string, seen smtp.Observation) events.Session {
	s := events.Session{Host: name}
	if seen.Local.IsValid() {
		s.LocalIP = seen.Local.String()
	}
	if t := seen.Observed.TLS; t != nil {
		s.TLSVersion, s.CipherName, s.CertErr = t.Version.String(), t.Cipher, !t.Cert.Valid()
	}
	return s
}
