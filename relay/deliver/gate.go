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
	job   *Job
	began time.Time

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

// gates are those of the attempts under way whose demands may change.
type gates struct {
	mu  sync.Mutex
	all map[*gate]bool
}

func (gs *gates) add(g *gate) {
	if g.job.Changed == nil {
		return
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	if gs.all == nil {
		gs.all = make(map[*gate]bool)
	}
	gs.all[g] = true
}

func (gs *gates) remove(g *gate) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	delete(gs.all, g)
}

// ask asks on behalf of every attempt older than askEvery.
func (gs *gates) ask() {
	var slow []*gate
	gs.mu.Lock()
	for g := range gs.all {
		if time.Since(g.began) > askEvery {
			slow = append(slow, g)
		}
	}
	gs.mu.Unlock()
	for _, g := range slow {
		g.ask()
	}
}
