package places

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Failures counts wrong keys by the source they come from. Who fails too often
// is answered slowly and loses the connection for it, but is always heard:
// others share the address, and no number of guesses finds a secret of 256
// bits.
type Failures struct {
	perMinute int
	delay     time.Duration // of a slow answer

	mu     sync.Mutex
	seen   map[netip.Prefix]tally
	slow   map[netip.Prefix]int // slow answers that are waiting
	nSlow  int                  // of all sources
	closed chan struct{}        // nobody waits any more
}

type tally struct {
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
)

// NewFailures makes a count that slows a source from the failure after perMinute on,
// and then delays an answer for so long.
func NewFailures(perMinute int, delay time.Duration) *Failures {
	return &Failures{
		perMinute: perMinute, delay: delay,
		seen: make(map[netip.Prefix]tally), slow: make(map[netip.Prefix]int), closed: make(chan struct{}),
	}
}

// Failed notes a failure and reports whether ip is slowed, and whether that
// begins now. Only the first failure of a connection counts. A source that is
// slowed stays so until it has not failed for a minute.
func (f *Failures) Failed(ip netip.Addr, now time.Time, first bool) (slowed, begins bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := Source(ip)
	t, known := f.seen[key]
	if !known && len(f.seen) >= maxSeen {
		f.sweep(now)
		if len(f.seen) >= maxSeen {
			return true, false
		}
	}
	if !now.Before(t.until) {
		t = tally{until: now.Add(time.Minute)}
	}
	if first {
		t.n++
	}
	slowed = t.n > f.perMinute
	if slowed {
		t.until = now.Add(time.Minute)
	}
	f.seen[key] = t
	return slowed, slowed && first && t.n == f.perMinute+1
}

func (f *Failures) sweep(now time.Time) {
	for k, t := range f.seen {
		if !now.Before(t.until) {
			delete(f.seen, k)
		}
	}
}

// Hold keeps an answer to ip back for the delay, if there is room, and not after ctx
// or [Failures.Close].
func (f *Failures) Hold(ctx context.Context, ip netip.Addr) {
	key := Source(ip)
	if !f.enter(key) {
		return
	}
	defer f.leave(key)
	timer := time.NewTimer(f.delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-f.closed:
	}
}

func (f *Failures) enter(key netip.Prefix) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nSlow >= maxSlow || f.slow[key] >= maxSlowPerSource {
		return false
	}
	f.nSlow++
	f.slow[key]++
	return true
}

func (f *Failures) leave(key netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nSlow--
	if f.slow[key]--; f.slow[key] <= 0 {
		delete(f.slow, key)
	}
}

// Close lets every answer go that is held back, and holds none back any more.
func (f *Failures) Close() { close(f.closed) }

// Counts gives how many connections of ip's source have failed in the minute that
// runs, and how many answers to it are held back.
func (f *Failures) Counts(ip netip.Addr) (failed, held int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seen[Source(ip)].n, f.slow[Source(ip)]
}
