package submission

import (
	"net/netip"
	"sync"
	"time"
)

// guard counts failed logins by the source they come from. Who fails too often
// is answered slowly and loses the connection for it, but is always heard:
// others share the address, and no number of guesses finds a secret of 256
// bits.
type guard struct {
	perMinute int
	delay     time.Duration // of a slow answer

	mu     sync.Mutex
	seen   map[netip.Prefix]failures
	slow   map[netip.Prefix]int // slow answers that are waiting
	nSlow  int                  // of all sources
	closed chan struct{}        // nobody waits any more
}

type failures struct {
	n     int       // connections that have failed
	until time.Time // the end of the minute that is counted, or of a minute without failures
}

const (
	// maxSeen bounds the table. When it is full of running minutes, further
	// sources are slowed from the first failure on.
	maxSeen = 1 << 16
	// Bounds of the answers that wait, each with a connection and a goroutine.
	// Beyond them a client is answered at once and loses its connection all
	// the same.
	maxSlow          = 100
	maxSlowPerSource = 4
	// maxFailures is how many failures of one connection are answered at once.
	// Clients try the mechanisms one after another.
	maxFailures = 5
)

func newGuard(perMinute int, delay time.Duration) *guard {
	return &guard{
		perMinute: perMinute, delay: delay,
		seen: make(map[netip.Prefix]failures), slow: make(map[netip.Prefix]int), closed: make(chan struct{}),
	}
}

// source is what counts as one source: an IPv6 host can use its whole /64.
func source(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// failed notes a failure and reports whether ip is slowed, and whether that
// begins now. Only the first failure of a connection counts. A source that is
// slowed stays so until it has not failed for a minute.
func (g *guard) failed(ip netip.Addr, now time.Time, first bool) (slowed, begins bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := source(ip)
	f, known := g.seen[key]
	if !known && len(g.seen) >= maxSeen {
		g.sweep(now)
		if len(g.seen) >= maxSeen {
			return true, false
		}
	}
	if !now.Before(f.until) {
		f = failures{until: now.Add(time.Minute)}
	}
	if first {
		f.n++
	}
	slowed = f.n > g.perMinute
	if slowed {
		f.until = now.Add(time.Minute)
	}
	g.seen[key] = f
	return slowed, slowed && first && f.n == g.perMinute+1
}

func (g *guard) sweep(now time.Time) {
	for k, f := range g.seen {
		if !now.Before(f.until) {
			delete(g.seen, k)
		}
	}
}

// hold keeps an answer to ip back for a while, if there is room.
func (g *guard) hold(ip netip.Addr) {
	key := source(ip)
	if !g.enter(key) {
		return
	}
	defer g.leave(key)
	timer := time.NewTimer(g.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.closed:
	}
}

func (g *guard) enter(key netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.nSlow >= maxSlow || g.slow[key] >= maxSlowPerSource {
		return false
	}
	g.nSlow++
	g.slow[key]++
	return true
}

func (g *guard) leave(key netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.nSlow--
	if g.slow[key]--; g.slow[key] <= 0 {
		delete(g.slow, key)
	}
}

// close lets every answer go that is held back, and holds none back any more.
func (g *guard) close() { close(g.closed) }
