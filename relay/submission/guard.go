package submission

import (
	"net/netip"
	"sync"
	"time"
)

// guard counts failed AUTH attempts per source address. Who fails too often
// within a minute is not heard for a minute, right secret or wrong: otherwise
// guessing would go on behind the refusals.
type guard struct {
	perMinute int

	mu   sync.Mutex
	seen map[netip.Prefix]failures
}

type failures struct {
	n     int
	until time.Time // the end of the minute that is counted, or of the pause
}

// maxSeen bounds the table. When it is full of running minutes the failures
// of further addresses go uncounted; the secrets have 256 bits.
const maxSeen = 1 << 16

func newGuard(perMinute int) *guard {
	return &guard{perMinute: perMinute, seen: make(map[netip.Prefix]failures)}
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

// paused reports whether AUTH from ip is not heard now.
func (g *guard) paused(ip netip.Addr, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.seen[source(ip)]
	return f.n >= g.perMinute && now.Before(f.until)
}

// failed counts one failure. The pause begins with the last that is allowed.
func (g *guard) failed(ip netip.Addr, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := source(ip)
	f, known := g.seen[key]
	if !known && len(g.seen) >= maxSeen {
		g.sweep(now)
		if len(g.seen) >= maxSeen {
			return
		}
	}
	if !now.Before(f.until) {
		f = failures{until: now.Add(time.Minute)}
	}
	if f.n++; f.n >= g.perMinute {
		f.until = now.Add(time.Minute)
	}
	g.seen[key] = f
}

func (g *guard) sweep(now time.Time) {
	for k, f := range g.seen {
		if !now.Before(f.until) {
			delete(g.seen, k)
		}
	}
}
