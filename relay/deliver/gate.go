package deliver

import (
	"context"
	"net"
	"sync"
	"time"
)

// What a sender demands may change while an attempt waits for a slow host. Until
// the end of the content is on its way nothing is lost by hanging up, so the
// change ends the attempt, whatever it waits for: the next one goes by what is
// demanded then. Engine.Run asks of all attempts that take long (gates.ask), and
// an attempt asks itself before content leaves, where nobody has for a while.

const (
	// askEvery is how often it is asked whether the demands of attempts still stand.
	askEvery = 400 * time.Millisecond
	// demandsHold is how long demands are taken for those that stand.
	demandsHold = time.Second
)

// gate is what one attempt passes through with its content. Of a nil gate, which is a
// probe's, nobody asks.
type gate struct {
	job        *Job
	began      time.Time
	next, prev *gate // in gates

	mu     sync.Mutex
	asked  time.Time // when the demands were last known to stand
	shut   bool      // they do not: nothing more may leave
	ending bool      // the end of content is on its way, so its answer is waited for
	conn   net.Conn  // the connection at work
	cancel context.CancelFunc
}

// waits notes how to end what the attempt waits for: the opening of a connection,
// or the next word on one. Both are nil when it waits for neither.
func (g *gate) waits(conn net.Conn, cancel context.CancelFunc) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conn, g.cancel, g.ending = conn, cancel, false
	if g.shut {
		g.stop()
	}
}

// stop ends what the attempt waits for. The caller holds g.mu.
func (g *gate) stop() {
	switch {
	case g.ending:
	case g.cancel != nil:
		g.cancel()
	case g.conn != nil:
		g.conn.Close()
	}
}

// ask finds out whether the demands still stand, and shuts the gate if not.
func (g *gate) ask() {
	changed := g.job.Changed(g.job)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !changed {
		g.asked = time.Now()
		return
	}
	g.shut = true
	g.stop()
}

// Open reports whether content may leave.
func (g *gate) Open() bool {
	g.mu.Lock()
	stale := !g.shut && g.job.Changed != nil && time.Since(g.asked) > demandsHold
	g.mu.Unlock()
	if stale {
		g.ask()
	}
	return !g.isShut()
}

// Pass reports whether the end of content may leave. If so, what it comes to
// counts: the attempt is not stopped any more until again is called.
func (g *gate) Pass() bool {
	if !g.Open() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = !g.shut
	return g.ending
}

// again tells that the end of content was answered.
func (g *gate) again() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = false
}

// isShut reports whether other things are demanded by now.
func (g *gate) isShut() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// gates are those of all attempts under way, the longest first.
type gates struct {
	mu   sync.Mutex
	ends gate // of the ring
}

func (gs *gates) add(g *gate) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.ends.next == nil {
		gs.ends.next, gs.ends.prev = &gs.ends, &gs.ends
	}
	g.prev, g.next = gs.ends.prev, &gs.ends
	g.prev.next, gs.ends.prev = g, g
}

func (gs *gates) remove(g *gate) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g.prev.next, g.next.prev = g.next, g.prev
}

// ask asks of every attempt that has gone on for a while.
func (gs *gates) ask() {
	for _, g := range gs.slow(time.Now().Add(-askEvery)) {
		g.ask()
	}
}

// slow gives the attempts that were begun before a time.
func (gs *gates) slow(before time.Time) (slow []*gate) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.ends.next == nil {
		return nil
	}
	for g := gs.ends.next; g != &gs.ends && g.began.Before(before); g = g.next {
		if g.job.Changed != nil {
			slow = append(slow, g)
		}
	}
	return slow
}
