package queue

import (
	"context"
	"math"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/queue/fair"
)

// DestinationStatus is how one destination queue stands.
type DestinationStatus struct {
	Lane     relay.Lane    `json:"lane"`
	Standing fair.Standing `json:"standing"`
	Window   int           `json:"window"`            // attempts at a time
	Busy     int           `json:"busy"`              // attempts under way
	Claimed  int           `json:"claimed"`           // in memory, not begun
	Accounts int           `json:"accounts"`          // with anything queued here, as far as known
	Due      time.Time     `json:"due,omitzero"`      // when the first of what is not in memory is due; zero: nothing known
	CoolOff  time.Time     `json:"cool_off,omitzero"` // nothing is tried until then; zero: not cooling off
	Crowded  string        `json:"crowded,omitempty"` // waits for a connection to this host or address
	Last     events.Reason `json:"last,omitempty"`    // of the newest attempt that failed for now
}

// Responds waits for a turn of the loop, however long that takes; false while
// Run is not on.
func (q *Queue) Responds() bool { return q.call(func(*scheduler, time.Time) {}) }

// Destinations gives the destination queues in memory, in no order; nil while Run
// is not on.
func (q *Queue) Destinations() []DestinationStatus {
	all, _ := q.SomeDestinations(math.MaxInt)
	return all
}

// SomeDestinations gives as many of the destination queues in memory as are asked
// for, in no order, and how many more there are.
func (q *Queue) SomeDestinations(limit int) (some []DestinationStatus, more int) {
	q.call(func(s *scheduler, now time.Time) {
		more = len(s.queues)
		some = make([]DestinationStatus, 0, min(more, limit))
		for _, dq := range s.queues {
			if len(some) == limit {
				break
			}
			some = append(some, s.status(dq, now))
			more--
		}
	})
	return some, more
}

func (s *scheduler) status(dq *destQueue, now time.Time) DestinationStatus {
	st := DestinationStatus{
		Lane: dq.key, Standing: dq.standing, Window: dq.window.Size(s.limits),
		Busy: dq.running, Claimed: dq.claimed, Accounts: len(dq.accounts),
	}
	for _, aq := range dq.accounts {
		st.Due = earliest(st.Due, aq.due)
	}
	if dq.isCrowded() {
		st.Crowded = dq.crowded.name
	}
	if dq.window.CoolingOff(now) {
		st.CoolOff = dq.window.CoolUntil()
	}
	if dq.last != nil {
		st.Last = dq.last.Reason
	}
	return st
}

// Retry tells that something of an account is due at b.Due, after somebody else
// changed it in the store, and ends the destination's cool-off: an operator's retry
// or release of one delivery.
func (q *Queue) Retry(b relay.Backlog) {
	q.call(func(s *scheduler, now time.Time) {
		aq := s.accountQueue(b.Lane, b.Account, now)
		aq.dest.window.EndCoolOff()
		s.noteDue(aq, b.Due, now)
		s.schedule(aq.dest, now)
	})
}

// Rescan has the store asked for everything that is queued, and every cool-off
// ended: an operator's retry or release of many deliveries.
func (q *Queue) Rescan() {
	q.call(func(s *scheduler, now time.Time) {
		for _, dq := range s.queues {
			dq.window.EndCoolOff()
			s.schedule(dq, now)
		}
		for _, t := range s.tenants {
			t.learned = lessons{}
		}
		select {
		case s.rescan <- struct{}{}:
		default: // one is coming already, and will see it
		}
	})
}

// Drop gives up a delivery that an operator has taken from the queue
// (relay.Operator.Take), with its events and its report. words tell its
// sender why. An error is that of the commit.
func (q *Queue) Drop(ctx context.Context, c relay.Claimed, words string) error {
	elsewhere, err := q.maker.Drop(ctx, c, words)
	for _, b := range elsewhere {
		q.Retry(b)
	}
	return err
}

// GuardHolds reports whether the mass-violation guard puts blocks off.
func (q *Queue) GuardHolds() bool { return q.maker.Guard.Active() }

// ReleaseGuard is an operator's word that the fault is not ours: what fails its
// demands is dropped again.
func (q *Queue) ReleaseGuard() { q.maker.Guard.Release() }
