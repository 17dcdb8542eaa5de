package queue

import (
	"container/list"
	"context"
	"sync"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// lane is one lane in memory. Only the loop touches it.
type lane struct {
	key  relay.Lane
	pace pace
	subs map[account.ID]*sub

	ready   fifo[*sub] // with claimed deliveries, in turn
	stalled fifo[*sub] // with something due in the store, until there is room for it, in turn
	hungry  int        // subs with something due in the store, wherever they wait
	offered int        // of these, in scheduler.claims
	site    *site      // where it waits for a connection; nil: nowhere

	busy     int // attempts under way
	held     int // deliveries claimed, being claimed or promised to Accept, not begun
	slow     int // of busy, under way for long
	standing Standing

	starts  uint8 // rings it stands in
	wake    alarm // at the end of the rest
	touched time.Time
	last    *relay.Failure // of the newest attempt that failed
}

// sub is what one account has in one lane.
type sub struct {
	tenant  *tenant
	lane    *lane
	used    int // of the lane's busy and held
	waiting fifo[*job]
	// next is when the first delivery in the store is due, as far as known;
	// zero: there is none, or not soon.
	next     time.Time
	place    where // where it waits to claim what is due
	admitted bool  // by the lane's site
	overdue  bool  // stands in scheduler.overdue
	claiming bool
	meantime time.Time // what next was to become during a claim
	wake     alarm     // at next
}

// where a sub with something due waits.
type where uint8

const (
	nowhere  where = iota
	enqueued       // in scheduler.claims, for its turn
	stalled        // in lane.stalled, for room in the lane
	blocked        // in tenant.blocked, for its account's share
	sited          // in site.turns, for a connection
	wheres
)

// job is one claimed delivery in memory.
type job struct {
	sub      *sub
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

// idle reports whether nothing is known to be queued soon, or under way.
func (b *sub) idle() bool {
	return b.next.IsZero() && !b.claiming && b.used == 0
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
