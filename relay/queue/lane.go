package queue

import (
	"time"

	"tlsrelay/relay"
)

// pace is what a lane has learned of its destination: how many attempts at a
// time it bears, and whether it needs rest. It follows Postfix's
// SCHEDULER_README: a window moved by feedback, and a cool-off apart from it.
// The zero pace knows nothing yet.
type pace struct {
	window   int       // attempts at a time; 0: not learned yet
	proven   bool      // the last that was heard was good
	troubles int       // cohorts failed in a row
	cut      time.Time // of the last cohort that failed
	rest     time.Duration
	until    time.Time // of the rest
}

// limits bound every pace.
type limits struct {
	window           int // the largest
	restMin, restMax time.Duration
}

const (
	// firstWindow is for a destination not heard of; Postfix's
	// initial_destination_concurrency.
	firstWindow = 5
	// deadAfter cohorts failed in a row, a destination is taken for dead.
	deadAfter = 3
)

// learn returns p after an attempt, begun at began, gave feedback f at now.
//
// Attempts that were under way when the window was cut belong to the cohort
// that failed: a host that goes away with twenty connections open has failed
// once, not twenty times.
func (p pace) learn(f relay.Feedback, began, now time.Time, lim limits) pace {
	switch f {
	case relay.Healthy:
		return pace{window: min(p.size(lim)+1, lim.window), proven: true, cut: p.cut}
	case relay.Trouble:
		if began.Before(p.cut) {
			return p
		}
		p.window = max(1, p.size(lim)/2)
		p.proven, p.cut = false, now
		p.troubles++
		if p.dead() {
			p.window = 1
			p.rest = min(max(p.rest+p.rest/2, lim.restMin), lim.restMax)
			p.until = now.Add(p.rest)
		}
	}
	return p // policy refusals say nothing (tls-policy §9)
}

// size is the window.
func (p pace) size(lim limits) int {
	if p.window == 0 {
		return min(firstWindow, lim.window)
	}
	return p.window
}

// dead reports whether only single probes are made.
func (p pace) dead() bool { return p.troubles >= deadAfter }

// resting reports whether not even a probe is due.
func (p pace) resting(now time.Time) bool { return now.Before(p.until) }

// standing tells how the lane counts among all, slow of its attempts being
// under way for long.
func (p pace) standing(slow int) Standing {
	switch {
	case slow > 0 || p.troubles > 0:
		return Laggard
	case p.proven:
		return Proven
	}
	return Unknown
}
