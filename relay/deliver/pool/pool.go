package pool

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"tlsrelay/relay/deliver/smtp"
)

// maxSessionAge ends a session however busy it is, so that a host's new certificate or
// policy is seen.
const maxSessionAge = 5 * time.Minute

// Pool holds the idle sessions and the leave to open more. An idle session counts as open,
// and is given up when another attempt needs its place. Its methods are safe for
// concurrent use.
type Pool struct {
	max, perHost int
	keep         time.Duration

	mu      sync.Mutex
	idle    map[smtp.Target][]*smtp.Session // the most recently used last
	idleAt  map[string]int                  // idle sessions by host
	open    map[string]int                  // open connections by host, idle ones included
	crowds  map[netip.AddrPort]*Crowd
	total   int
	waiters []*waiter
	closed  bool
}

// Crowd is the connections to one address. Hosts bound their number, and show the bound
// only by refusing the next one.
type Crowd struct {
	Open  int // with those that are idle or being opened
	Live  int // those that have become sessions
	Idle  int
	Limit int       // how many the address allows; 0: not known
	until time.Time // when Limit is forgotten
}

const (
	// crowdFor is how long it is remembered how many connections an address allows.
	crowdFor = time.Hour
	// maxCrowds bounds the addresses, without connections, for which it is.
	maxCrowds = 10000
)

// full reports whether the address gets no further connection: it has as many as any host
// may have, whatever its names are, or as it allows. A nil crowd is empty.
func (c *Crowd) full(most int) bool {
	return c != nil && (c.Open >= most || c.Limit > 0 && c.Open >= c.Limit && time.Now().Before(c.until))
}

// CrowdedError says that a host or an address had all the connections it may have
// for as long as the caller wanted to wait.
type CrowdedError struct{ Place string } // the host, or the address

// Error implements error.
func (e *CrowdedError) Error() string { return e.Place + " has all the connections it may have" }

// Fresh accepts no idle session.
func Fresh(*smtp.Session) bool { return false }

// waiter is an attempt that waits for a place.
type waiter struct {
	key   smtp.Target
	ready chan struct{} // closed when it is worth another look
}

// New makes a pool: most bounds the connections in all, perHost those to a host name and
// those to an address, and keep is how long it keeps an idle session.
func New(most, perHost int, keep time.Duration) *Pool {
	return &Pool{
		max: most, perHost: perHost, keep: keep,
		idle: make(map[smtp.Target][]*smtp.Session), idleAt: make(map[string]int), open: make(map[string]int),
		crowds: make(map[netip.AddrPort]*Crowd),
	}
}

// Take gives an idle session that usable accepts, if there is one.
func (p *Pool) Take(k smtp.Target, usable func(*smtp.Session) bool) *smtp.Session {
	for {
		p.mu.Lock()
		s, old := p.pick(k, usable)
		p.mu.Unlock()
		p.Drop(old...)
		switch {
		case s == nil:
			return nil
		case s.OneMessage():
			p.Drop(s)
			continue
		case !s.Pending():
			return s
		}
		s.NotePending()
		s.Close()
		p.Release(k, true)
	}
}

// Acquire gives an idle session that usable accepts or, with nil, leave to open a
// connection, which Release takes back. It waits while a bound is reached: for as long as
// ctx lasts and, if the bound is that of the host or the address, for patience (0: no
// limit). After patience the error is a [CrowdedError], after ctx its error.
func (p *Pool) Acquire(ctx context.Context, k smtp.Target, usable func(*smtp.Session) bool, patience time.Duration) (*smtp.Session, error) {
	var late <-chan time.Time
	for {
		if s := p.Take(k, usable); s != nil {
			return s, nil
		}
		p.mu.Lock()
		evicted, ok := p.room(k)
		if ok {
			p.open[k.Host]++
			p.crowd(k.Addr).Open++
			p.total++
			p.wake() // there may be room for more
			limited := p.crowds[k.Addr].Limit > 0
			p.mu.Unlock()
			p.retire(evicted, limited)
			return nil, nil
		}
		w := &waiter{k, make(chan struct{})}
		p.waiters = append(p.waiters, w)
		p.mu.Unlock()
		if late == nil && patience > 0 {
			t := time.NewTimer(patience)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-w.ready:
		case <-late:
			p.abandon(w)
			if place := p.Crowded(k); place != "" {
				return nil, &CrowdedError{place}
			}
			late = nil // the bound on all connections is reached: no limit
		case <-ctx.Done():
			p.abandon(w)
			return nil, ctx.Err()
		}
	}
}

// pick finds the newest usable session of k and takes out those that are too
// old.
func (p *Pool) pick(k smtp.Target, usable func(*smtp.Session) bool) (found *smtp.Session, old []*smtp.Session) {
	now := time.Now()
	list := p.idle[k]
	for i := len(list) - 1; i >= 0 && found == nil; i-- {
		s := list[i]
		if p.stale(s, now) {
			old = append(old, s)
			list = p.remove(k, i)
		} else if usable(s) {
			found = s
			list = p.remove(k, i)
		}
	}
	return found, old
}

func (p *Pool) stale(s *smtp.Session, now time.Time) bool {
	return now.Sub(s.IdleSince) >= p.keep || now.Sub(s.Opened) >= maxSessionAge
}

// remove takes the i-th idle session of k out of the list.
func (p *Pool) remove(k smtp.Target, i int) []*smtp.Session {
	list := slices.Delete(p.idle[k], i, i+1)
	p.idle[k] = list
	if len(list) == 0 {
		delete(p.idle, k)
	}
	if p.idleAt[k.Host]--; p.idleAt[k.Host] == 0 {
		delete(p.idleAt, k.Host)
	}
	p.crowds[k.Addr].Idle--
	return list
}

// room says whether one more connection is within bounds, giving up an idle
// session where that makes it so.
func (p *Pool) room(want smtp.Target) (evicted *smtp.Session, ok bool) {
	hostFull, addrFull := p.open[want.Host] >= p.perHost, p.crowds[want.Addr].full(p.perHost)
	if !hostFull && !addrFull && p.total < p.max {
		return nil, true
	}
	for k, list := range p.idle {
		if (!hostFull || k.Host == want.Host) && (!addrFull || k.Addr == want.Addr) {
			s := list[0]
			p.remove(k, 0)
			p.forget(k, true)
			return s, true
		}
	}
	return nil, false
}

// Crowded says which of the address and the host of k has all the connections it may have,
// and none of them idle; "" for neither.
func (p *Pool) Crowded(k smtp.Target) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.crowds[k.Addr]
	switch {
	case c.full(p.perHost) && c.Idle == 0:
		return k.Addr.String()
	case p.open[k.Host] >= p.perHost && p.idleAt[k.Host] == 0:
		return k.Host
	}
	return ""
}

// crowd gives that of an address.
func (p *Pool) crowd(addr netip.AddrPort) *Crowd {
	c := p.crowds[addr]
	if c == nil {
		c = &Crowd{}
		p.crowds[addr] = c
	}
	return c
}

// Opened notes that a connection which Acquire gave leave for has become a session.
func (p *Pool) Opened(k smtp.Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.crowd(k.Addr)
	if c.Live++; c.Limit > 0 && c.Live > c.Limit {
		c.Limit = c.Live
		p.wake()
	}
}

// TurnedAway notes that an address refused a connection, which Release has not taken back
// yet; before tells that it has done so in this attempt already. It reports whether the
// other connections are as many as the address allows: the next one then waits for one
// of them.
func (p *Pool) TurnedAway(k smtp.Target, before bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.crowd(k.Addr)
	if c.Open <= 1 || c.Live == 0 && before {
		c.Limit = 0
		return false
	}
	c.Limit, c.until = max(1, c.Live), time.Now().Add(crowdFor)
	return true
}

// Put gives a session back for other attempts.
func (p *Pool) Put(s *smtp.Session) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.Drop(s)
		return
	}
	s.IdleSince = time.Now()
	p.idle[s.Target] = append(p.idle[s.Target], s)
	p.idleAt[s.Target.Host]++
	p.crowd(s.Target.Addr).Idle++
	p.wake()
	p.mu.Unlock()
}

// Release gives back the place of a connection that is closed. live tells that it was a
// session.
func (p *Pool) Release(k smtp.Target, live bool) {
	p.mu.Lock()
	p.forget(k, live)
	p.wake()
	p.mu.Unlock()
}

func (p *Pool) forget(k smtp.Target, live bool) {
	p.total--
	if p.open[k.Host]--; p.open[k.Host] == 0 {
		delete(p.open, k.Host)
	}
	c := p.crowds[k.Addr]
	c.Open--
	if live {
		c.Live--
	}
	if c.Open == 0 && (c.Limit == 0 || time.Now().After(c.until)) {
		delete(p.crowds, k.Addr)
	}
	if len(p.crowds) > maxCrowds {
		p.sweep()
	}
}

// sweep forgets the limits of addresses without connections: those that have ended or, if
// that is not enough, all.
func (p *Pool) sweep() {
	now := time.Now()
	maps.DeleteFunc(p.crowds, func(_ netip.AddrPort, c *Crowd) bool { return c.Open == 0 && now.After(c.until) })
	if len(p.crowds) > maxCrowds {
		maps.DeleteFunc(p.crowds, func(_ netip.AddrPort, c *Crowd) bool { return c.Open == 0 })
	}
}

// Drop ends sessions by QUIT and gives back their places.
func (p *Pool) Drop(sessions ...*smtp.Session) {
	for _, s := range sessions {
		p.mu.Lock()
		limited := p.crowd(s.Target.Addr).Limit > 0
		p.mu.Unlock()
		p.retire(s, limited)
		p.Release(s.Target, true)
	}
}

// retire ends a session, if there is one. Where an address allows so many connections and
// no more, retire waits until the host has seen the end: it would refuse the next one.
func (p *Pool) retire(s *smtp.Session, limited bool) {
	switch {
	case s == nil:
	case limited:
		s.QuitAndWait()
	default:
		s.Quit()
	}
}

// wake lets the first waiter try again that could now succeed.
func (p *Pool) wake() {
	for i, w := range p.waiters {
		host := p.open[w.key.Host] < p.perHost || p.idleAt[w.key.Host] > 0
		c := p.crowds[w.key.Addr]
		all := p.total < p.max || len(p.idle) > 0
		if host && all && (!c.full(p.perHost) || c.Idle > 0) {
			p.waiters = slices.Delete(p.waiters, i, i+1)
			close(w.ready)
			return
		}
	}
}

// abandon takes w out; if w was woken already, it wakes the next one.
func (p *Pool) abandon(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiters, w); i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
		return
	}
	p.wake()
}

// Reap closes the sessions that were idle too long, or are too old.
func (p *Pool) Reap() {
	now := time.Now()
	p.evict(func(s *smtp.Session) bool { return p.stale(s, now) })
}

// CloseIdle closes all idle sessions.
func (p *Pool) CloseIdle() { p.evict(func(*smtp.Session) bool { return true }) }

// Close closes all idle sessions and, from then on, those that are put back.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.CloseIdle()
}

// evict closes the idle sessions that are to go.
func (p *Pool) evict(goes func(*smtp.Session) bool) {
	var old []*smtp.Session
	p.mu.Lock()
	for k := range p.idle {
		for i := len(p.idle[k]) - 1; i >= 0; i-- {
			if s := p.idle[k][i]; goes(s) {
				old = append(old, s)
				p.remove(k, i)
			}
		}
	}
	p.mu.Unlock()
	p.Drop(old...)
}

// Stats is what a pool holds.
type Stats struct {
	Open, Idle int // connections; those that are idle are open as well
	Hosts      int // that have one
	Waiting    int // attempts that wait for one
}

// Stats gives what the pool holds now.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Stats{Open: p.total, Hosts: len(p.open), Waiting: len(p.waiters)}
	for _, n := range p.idleAt {
		s.Idle += n
	}
	return s
}

// At gives what is known of the connections to an address now.
func (p *Pool) At(addr netip.AddrPort) Crowd {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.crowds[addr]; c != nil {
		return *c
	}
	return Crowd{}
}

// Idle gives the sessions that are idle now. They stay the pool's.
func (p *Pool) Idle() (all []*smtp.Session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range p.idle {
		all = append(all, list...)
	}
	return all
}
