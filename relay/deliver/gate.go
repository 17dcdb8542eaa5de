package deliver

import (
	"context"
	"net"
	"sync"
	"time"
)

// What a sender demands may change while an attempt waits for a slow host. Until the end of
// the content leaves, nothing is lost by hanging up. So a change ends the attempt, whatever
// it waits for, and the next attempt goes by the new demands. Engine.Run asks for changes
// on behalf of all attempts that take long (gates.ask); an attempt asks itself before
// content leaves, if the last answer is older than demandsHold.

const (
	// askEvery is how often Run asks whether the demands of attempts still stand.
	askEvery = 400 * time.Millisecond
	// demandsHold is how long an answer counts.
	demandsHold = time.Second
)

// gate lets the content of one attempt through while its demands stand (wire.Gate). A probe
// has none: its gate is nil.
type gate struct {
	job        *Job
	began      time.Time
	next, prev *gate // in gates

	mu     sync.Mutex
	asked  time.Time // when the demands were last known to stand
	shut   bool      // the demands have changed: nothing more may leave
	ending bool      // the end of the content has left: the attempt waits for the reply
	conn   net.Conn  // the connection in use
	cancel context.CancelFunc
}

// waits notes what ends the wait of the attempt: cancel while a connection opens, closing
// conn while a session is in use. Both are nil when it does neither.
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

// stop ends the wait of the attempt. The caller holds g.mu.
func (g *gate) stop() {
	switch {
	case g.ending:
	case g.cancel != nil:
		g.cancel()
	case g.conn != nil:
		g.conn.Close()
	}
}

// ask asks whether the demands still stand, and shuts the gate if not.
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

// Open implements wire.Gate.
func (g *gate) Open() bool {
	g.mu.Lock()
	stale := !g.shut && g.job.Changed != nil && time.Since(g.asked) > demandsHold
	g.mu.Unlock()
	if stale {
		g.ask()
	}
	return !g.isShut()
}

// Pass implements wire.Gate. After it the attempt is not stopped until again is called.
func (g *gate) Pass() bool {
	if !g.Open() {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = !g.shut
	return g.ending
}

// again notes that the message was answered.
func (g *gate) again() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ending = false
}

// isShut reports whether the demands have changed.
func (g *gate) isShut() bool {
	if g == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.shut
}

// gates are those of all attempts under way, the oldest first.
type gates struct {
	mu   sync.Mutex
	ends gate // where the ring begins and ends
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

// ask asks on behalf of every attempt older than askEvery.
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
