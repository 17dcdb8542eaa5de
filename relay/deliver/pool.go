package deliver

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// maxSessionAge ends even a busy session, so that a host's change of
// certificate or policy is noticed.
const maxSessionAge = 5 * time.Minute

// pool holds the idle sessions and the leave to open more. An idle session
// counts as open, and is given up when somebody else needs its place.
type pool struct {
	max, perHost int
	keep         time.Duration

	mu      sync.Mutex
	idle    map[target][]*session // the most recently used last
	idleAt  map[string]int        // idle sessions by host
	open    map[string]int        // open connections by host, idle ones included
	crowds  map[netip.AddrPort]*crowd
	total   int
	waiters []*waiter
	closed  bool
}

// crowd is the connections to one address. Hosts bound their number, and say so
// only by refusing the next one.
type crowd struct {
	open  int // idle ones and those on their way included
	live  int // those that have become sessions
	idle  int
	limit int       // how many the address takes; 0: not known
	until time.Time // when that is forgotten
}

const (
	// crowdFor is how long the number of connections an address takes is believed.
	crowdFor = time.Hour
	// maxCrowds bounds the addresses without connections of which that is known.
	maxCrowds = 10000
)

// full reports whether the address gets no further connection: it has as many as
// any host may have, whatever its names are, or as it takes. A nil crowd is empty.
func (c *crowd) full(most int) bool {
	return c != nil && (c.open >= most || c.limit > 0 && c.open >= c.limit && time.Now().Before(c.until))
}

// crowdedError is that of a place which has had all the connections it may have
// for longer than somebody wanted to wait.
type crowdedError struct{ place string } // the host, or the address

func (e *crowdedError) Error() string { return e.place + " has all the connections it may have" }

// fresh accepts no idle session.
func fresh(*session) bool { return false }

type waiter struct {
	key   target
	ready chan struct{} // closed when it is worth another look
}

// newPool makes a pool of so many connections in all, so many to a host and to an
// address, that keeps idle sessions for a while.
func newPool(most, perHost int, keep time.Duration) *pool {
	return &pool{
		max: most, perHost: perHost, keep: keep,
		idle: make(map[target][]*session), idleAt: make(map[string]int), open: make(map[string]int),
		crowds: make(map[netip.AddrPort]*crowd),
	}
}

// take gives an idle session that usable accepts, if there is one.
func (p *pool) take(k target, usable func(*session) bool) *session {
	for {
		p.mu.Lock()
		s, old := p.pick(k, usable)
		p.mu.Unlock()
		p.drop(old...)
		switch {
		case s == nil:
			return nil
		case s.oneMore():
			p.drop(s)
			continue
		case !s.pending():
			return s
		}
		s.left()
		s.close()
		p.release(k, true)
	}
}

// acquire gives an idle session that usable accepts or, with nil, leave to
// open a connection, which release takes back. It waits while the bounds are
// reached.
func (p *pool) acquire(ctx context.Context, k target, usable func(*session) bool) (*session, error) {
	return p.acquireWithin(ctx, k, usable, 0)
}

// acquireWithin is acquire with patience (0: any) for a host or an address that
// has all it may have: then it is a [crowdedError].
func (p *pool) acquireWithin(ctx context.Context, k target, usable func(*session) bool, patience time.Duration) (*session, error) {
	var late <-chan time.Time
	for {
		if s := p.take(k, usable); s != nil {
			return s, nil
		}
		p.mu.Lock()
		evicted, ok := p.room(k)
		if ok {
			p.open[k.host]++
			p.crowd(k.addr).open++
			p.total++
			p.wake() // there may be room for more
			limited := p.crowds[k.addr].limit > 0
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
			if place := p.crowded(k); place != "" {
				return nil, &crowdedError{place}
			}
			late = nil // it is our own bound on all that is reached
		case <-ctx.Done():
			p.abandon(w)
			return nil, ctx.Err()
		}
	}
}

// pick finds the newest usable session of k and takes out those that are too
// old.
func (p *pool) pick(k target, usable func(*session) bool) (found *session, old []*session) {
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

func (p *pool) stale(s *session, now time.Time) bool {
	return now.Sub(s.idle) >= p.keep || now.Sub(s.opened) >= maxSessionAge
}

// remove takes the i-th idle session of k out of the list.
func (p *pool) remove(k target, i int) []*session {
	list := slices.Delete(p.idle[k], i, i+1)
	p.idle[k] = list
	if len(list) == 0 {
		delete(p.idle, k)
	}
	if p.idleAt[k.host]--; p.idleAt[k.host] == 0 {
		delete(p.idleAt, k.host)
	}
	p.crowds[k.addr].idle--
	return list
}

// room says whether one more connection is within bounds, giving up an idle
// session where that makes it so.
func (p *pool) room(want target) (evicted *session, ok bool) {
	hostFull, addrFull := p.open[want.host] >= p.perHost, p.crowds[want.addr].full(p.perHost)
	if !hostFull && !addrFull && p.total < p.max {
		return nil, true
	}
	for k, list := range p.idle {
		if (!hostFull || k.host == want.host) && (!addrFull || k.addr == want.addr) {
			s := list[0]
			p.remove(k, 0)
			p.forget(k, true)
			return s, true
		}
	}
	return nil, false
}

// crowded says which of the address and the host of k has all the connections it
// may have, and all of them at work; "" for neither.
func (p *pool) crowded(k target) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.crowds[k.addr]
	switch {
	case c.full(p.perHost) && c.idle == 0:
		return k.addr.String()
	case p.open[k.host] >= p.perHost && p.idleAt[k.host] == 0:
		return k.host
	}
	return ""
}

// crowd gives that of an address.
func (p *pool) crowd(addr netip.AddrPort) *crowd {
	c := p.crowds[addr]
	if c == nil {
		c = &crowd{}
		p.crowds[addr] = c
	}
	return c
}

// opened notes that a connection has become a session.
func (p *pool) opened(k target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.crowd(k.addr)
	if c.live++; c.limit > 0 && c.live > c.limit {
		c.limit = c.live
		p.wake()
	}
}

// turnedAway notes that an address hung up on a connection that release has not
// taken back yet, and has done so before in this attempt or not. It reports whether
// that says no more than that the others are as many as the address takes: then the
// next one waits for one of them.
func (p *pool) turnedAway(k target, before bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.crowd(k.addr)
	if c.open <= 1 || c.live == 0 && before {
		c.limit = 0
		return false
	}
	c.limit, c.until = max(1, c.live), time.Now().Add(crowdFor)
	return true
}

// put gives a session back for others.
func (p *pool) put(s *session) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.drop(s)
		return
	}
	s.idle = time.Now()
	p.idle[s.key] = append(p.idle[s.key], s)
	p.idleAt[s.key.host]++
	p.crowd(s.key.addr).idle++
	p.wake()
	p.mu.Unlock()
}

// release gives back the place of a connection that is closed. live tells that
// it was a session.
func (p *pool) release(k target, live bool) {
	p.mu.Lock()
	p.forget(k, live)
	p.wake()
	p.mu.Unlock()
}

func (p *pool) forget(k target, live bool) {
	p.total--
	if p.open[k.host]--; p.open[k.host] == 0 {
		delete(p.open, k.host)
	}
	c := p.crowds[k.addr]
	c.open--
	if live {
		c.live--
	}
	if c.open == 0 && (c.limit == 0 || time.Now().After(c.until)) {
		delete(p.crowds, k.addr)
	}
	if len(p.crowds) > maxCrowds {
		p.sweep()
	}
}

// sweep forgets limits of addresses without connections: those that hold no more
// or, where there are none, all.
func (p *pool) sweep() {
	now := time.Now()
	maps.DeleteFunc(p.crowds, func(_ netip.AddrPort, c *crowd) bool { return c.open == 0 && now.After(c.until) })
	if len(p.crowds) > maxCrowds {
		maps.DeleteFunc(p.crowds, func(_ netip.AddrPort, c *crowd) bool { return c.open == 0 })
	}
}

// drop leaves sessions politely and gives back their places.
func (p *pool) drop(sessions ...*session) {
	for _, s := range sessions {
		p.mu.Lock()
		limited := p.crowd(s.key.addr).limit > 0
		p.mu.Unlock()
		p.retire(s, limited)
		p.release(s.key, true)
	}
}

// retire leaves a session, nil being none. Where the address takes so many
// connections and no more, the next one is for when it has noticed that.
func (p *pool) retire(s *session, limited bool) {
	switch {
	case s == nil:
	case limited:
		s.quitAndWait()
	default:
		s.quit()
	}
}

// wake lets the first waiter try again who could now succeed.
func (p *pool) wake() {
	for i, w := range p.waiters {
		host := p.open[w.key.host] < p.perHost || p.idleAt[w.key.host] > 0
		c := p.crowds[w.key.addr]
		all := p.total < p.max || len(p.idle) > 0
		if host && all && (!c.full(p.perHost) || c.idle > 0) {
			p.waiters = slices.Delete(p.waiters, i, i+1)
			close(w.ready)
			return
		}
	}
}

// abandon takes w out, or passes its chance on if it had come already.
func (p *pool) abandon(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.waiters, w); i >= 0 {
		p.waiters = slices.Delete(p.waiters, i, i+1)
		return
	}
	p.wake()
}

// reap closes the sessions that were idle too long.
func (p *pool) reap() {
	now := time.Now()
	p.evict(func(s *session) bool { return p.stale(s, now) })
}

// closeIdle closes all idle sessions.
func (p *pool) closeIdle() { p.evict(func(*session) bool { return true }) }

// close closes all idle sessions, and from now on those that are put back.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.closeIdle()
}

// evict closes the idle sessions that are to go.
func (p *pool) evict(goes func(*session) bool) {
	var old []*session
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
	p.drop(old...)
}

// stats is what a pool holds.
type stats struct {
	open, idle int // connections; those that are idle are open as well
	hosts      int // that have one
	waiting    int // attempts that wait for one
}

// stats gives what the pool holds now.
func (p *pool) stats() stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := stats{open: p.total, hosts: len(p.open), waiting: len(p.waiters)}
	for _, n := range p.idleAt {
		s.idle += n
	}
	return s
}

// address gives what is known of the connections to an address now.
func (p *pool) address(addr netip.AddrPort) crowd {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.crowds[addr]; c != nil {
		return *c
	}
	return crowd{}
}

// idleSessions gives the sessions that are idle now. They stay the pool's.
func (p *pool) idleSessions() (all []*session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, list := range p.idle {
		all = append(all, list...)
	}
	return all
}
