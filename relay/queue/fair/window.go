package fair

import (
	"time"

	"tlsrelay/relay"
)

// Standing is what a destination has shown of itself lately. Its values are those
// that operators see.
type Standing string

// An Unproven destination has had no answer yet, a Healthy one has worked, a Slow
// one is in trouble or takes long.
const (
	Unproven Standing = "unknown"
	Healthy  Standing = "proven"
	Slow     Standing = "laggard"
)

// Window is the concurrency window of a destination, and its cool-off: how many
// attempts at a time it bears, and until when none is made. Feedback moves the
// window; the cool-off is apart from it, as in Postfix's SCHEDULER_README. The
// zero Window is that of a destination of which nothing is known.
type Window struct {
	size      int       // attempts at a time; 0: not learned yet
	healthy   bool      // the last feedback was good
	failures  int       // cohorts that failed in a row
	cutAt     time.Time // when the last cohort failed
	coolOff   time.Duration
	coolUntil time.Time
}

// Limits bound every window and every cool-off.
type Limits struct {
	Window                 int // the largest
	MinCoolOff, MaxCoolOff time.Duration
}

const (
	// FirstWindow is for a destination of which nothing is known; it is Postfix's
	// initial_destination_concurrency.
	FirstWindow = 5
	// deadAfter is how many cohorts fail in a row until a destination counts as
	// dead.
	deadAfter = 3
)

// Learn returns w after an attempt that began at began gave feedback f at now.
//
// Attempts that were under way when the window was cut belong to the cohort that
// failed: a host that goes away with twenty connections open has failed once, not
// twenty times. Neutral feedback changes nothing: a host that refuses one sender's
// mail, or its TLS demands, has not shown that it bears less.
func (w Window) Learn(f relay.Feedback, began, now time.Time, lim Limits) Window {
	switch f {
	case relay.Healthy:
		return Window{size: min(w.Size(lim)+1, lim.Window), healthy: true, cutAt: w.cutAt}
	case relay.Trouble:
		if began.Before(w.cutAt) {
			return w
		}
		w.size = max(1, w.Size(lim)/2)
		w.healthy, w.cutAt = false, now
		w.failures++
		if w.Dead() {
			w.size = 1
			w.coolOff = min(max(w.coolOff+w.coolOff/2, lim.MinCoolOff), lim.MaxCoolOff)
			w.coolUntil = now.Add(w.coolOff)
		}
	}
	return w
}

// Size is how many attempts at a time may be made.
func (w Window) Size(lim Limits) int {
	if w.size == 0 {
		return min(FirstWindow, lim.Window)
	}
	return w.size
}

// Dead reports whether only single probes are made.
func (w Window) Dead() bool { return w.failures >= deadAfter }

// CoolingOff reports whether not even a probe may be made at now.
func (w Window) CoolingOff(now time.Time) bool { return now.Before(w.coolUntil) }

// CoolUntil is the end of the last cool-off; zero when there was none.
func (w Window) CoolUntil() time.Time { return w.coolUntil }

// EndCoolOff lets a probe be made at once.
func (w *Window) EndCoolOff() { w.coolUntil = time.Time{} }

// Standing gives the standing of a destination, slow of whose attempts have been
// under way for long.
func (w Window) Standing(slow int) Standing {
	switch {
	case slow > 0 || w.failures > 0:
		return Slow
	case w.healthy:
		return Healthy
	}
	return Unproven
}
