package queue

import (
	"container/list"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// lane is one lane in memory. Only the loop touches it.
type lane struct {
	key  relay.Lane
	pace pace
	subs map[account.ID]*sub

	ready  fifo[*sub] // with claimed deliveries, in turn
	hungry fifo[*sub] // with something due in the store, in turn

	busy     int // attempts under way
	held     int // deliveries claimed, being claimed or promised to Accept, not begun
	slow     int // of busy, under way for long
	standing Standing

	starts, claims uint8 // rings it stands in
	wake           alarm // at the end of the rest
	touched        time.Time
	last           *relay.Failure // of the newest attempt that failed
}

// sub is what one account has in one lane.
type sub struct {
	who     account.ID
	lane    *lane
	waiting fifo[*job]
	// next is when the first delivery in the store is due, as far as known;
	// zero: there is none.
	next     time.Time
	hungry   bool // stands in lane.hungry
	overdue  bool // stands in scheduler.overdue
	claiming bool
	meantime time.Time // what next was to become during a claim
	wake     alarm     // at next
}

// job is one claimed delivery in memory.
type job struct {
	lane     *lane
	message  relay.Message
	delivery relay.Delivery // as claimed
	began    time.Time
	running  *list.Element // in scheduler.running, while quick
	slow     bool

	// mu guards what the worker shares with the renewal of the lease, which may
	// hold it while it waits for the loop.
	mu      sync.Mutex
	renewed *relay.Delivery // with the lease as it was last renewed
	renewal *time.Timer     // nil: not yet
	over    bool
	cancel  context.CancelFunc
	// adopted is the delivery as this process claimed it again by accident.
	adopted atomic.Pointer[relay.Delivery]
}

// limit is how many deliveries a lane may have in memory. A laggard takes
// only what it can begin at once: whatever it held would wait for long.
func (l *lane) limit(lim limits) int {
	if l.standing == Laggard {
		return l.pace.size(lim)
	}
	return 2 * l.pace.size(lim)
}

// room is how many more it may have.
func (l *lane) room(lim limits) int { return l.limit(lim) - l.busy - l.held }

// sub finds or makes the account's part of the lane.
func (l *lane) sub(who account.ID) *sub {
	b, ok := l.subs[who]
	if !ok {
		b = &sub{who: who, lane: l}
		l.subs[who] = b
	}
	return b
}

// idle reports whether nothing is known to be queued.
func (b *sub) idle() bool {
	return b.next.IsZero() && !b.claiming && b.waiting.len() == 0
}

// due reports whether something in the store is due at now.
func (b *sub) due(now time.Time) bool { return !b.next.IsZero() && !b.next.After(now) }

// earliest gives the earlier of two times, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
