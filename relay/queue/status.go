package queue

import (
	"context"
	"math"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// Standing is what a lane's destination has shown of itself lately. Slots are
// shared by it.
type Standing string

// Unknown lanes have had no answer yet, proven ones have worked, laggards are
// in trouble or slow.
const (
	Unknown Standing = "unknown"
	Proven  Standing = "proven"
	Laggard Standing = "laggard"
)

// LaneStatus is how one lane stands.
type LaneStatus struct {
	Lane     relay.Lane    `json:"lane"`
	Standing Standing      `json:"standing"`
	Window   int           `json:"window"`            // attempts at a time
	Busy     int           `json:"busy"`              // attempts running
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

// Lanes gives the lanes in memory, in no order; nil while Run is not on.
func (q *Queue) Lanes() []LaneStatus {
	all, _ := q.SomeLanes(math.MaxInt)
	return all
}

// SomeLanes gives as many of the lanes in memory as are asked for, in no order,
// and how many more there are.
func (q *Queue) SomeLanes(limit int) (some []LaneStatus, more int) {
	q.call(func(s *scheduler, now time.Time) {
		more = len(s.lanes)
		some = make([]LaneStatus, 0, min(more, limit))
		for _, l := range s.lanes {
			if len(some) == limit {
				break
			}
			some = append(some, s.status(l, now))
			more--
		}
	})
	return some, more
}

func (s *scheduler) status(l *lane, now time.Time) LaneStatus {
	st := LaneStatus{
		Lane: l.key, Standing: l.standing, Window: l.pace.size(s.lim),
		Busy: l.busy, Claimed: l.held, Accounts: len(l.subs),
	}
	for _, b := range l.subs {
		st.Due = earliest(st.Due, b.next)
	}
	if l.crowded() {
		st.Crowded = l.site.name
	}
	if l.pace.resting(now) {
		st.CoolOff = l.pace.until
	}
	if l.last != nil {
		st.Last = l.last.Reason
	}
	return st
}

// Retry tells that something of a lane and an account is due at b.Due, after
// it was changed in the store by another hand, and ends the lane's cool-off:
// an operator's retry or release of one delivery.
func (q *Queue) Retry(b relay.Backlog) {
	q.call(func(s *scheduler, now time.Time) {
		at := s.sub(b.Lane, b.Account, now)
		at.lane.pace.until = time.Time{}
		s.mark(at, b.Due, now)
		s.place(at.lane, now)
	})
}

// Rescan has the store asked for everything that is queued, and every
// cool-off ended: an operator's retry or release of many deliveries.
func (q *Queue) Rescan() {
	q.call(func(s *scheduler, now time.Time) {
		for _, l := range s.lanes {
			l.pace.until = time.Time{}
			s.place(l, now)
		}
		for _, t := range s.tenants {
			t.memos = memos{}
		}
		select {
		case s.rescan <- struct{}{}:
		default: // one is coming already, and will see it
		}
	})
}

// Drop gives up a delivery that an operator has taken from the queue
// (relay.Operator.Take), with its events and its report. words tell its
// sender why.
func (q *Queue) Drop(ctx context.Context, c relay.Claimed, words string) error {
	w := &crew{Queue: q, attempts: ctx, commits: ctx}
	// A sender that cannot be asked may demand anything.
	sender, err := q.sender(ctx, c.Message, c.Delivery.Lane.Destination)
	demanding := err != nil || !c.Message.Demands(sender).Opportunistic()
	t := c.Delivery.Drop(c.Message, time.Now(), words, demanding)
	if err := w.settle(&t); err != nil {
		return err
	}
	for _, b := range reported(t) {
		q.Retry(b)
	}
	return nil
}
