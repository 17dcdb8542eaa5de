package queue

import (
	"container/list"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/queue/attempt"
	"tlsrelay/relay/queue/fair"
)

// destQueue is a destination queue in memory. Only the loop touches it.
type destQueue struct {
	key      relay.Lane
	window   fair.Window
	accounts map[account.ID]*accountQueue

	ready      fair.FIFO[*accountQueue] // with claimed deliveries, in turn
	forRoom    fair.FIFO[*accountQueue] // that wait for room, in turn
	waiting    int                      // account queues with something due in the store, whatever they wait for
	claimTurns int                      // of these, in scheduler.claimTurns
	crowded    *crowdedHost             // where it waits for a connection; nil: nowhere

	running  int // attempts under way
	claimed  int // deliveries claimed, being claimed or promised to Accept, not begun
	slow     int // of running, under way for long
	standing fair.Standing

	starts  fair.RankSet // where it stands in scheduler.starts
	wake    alarm        // at the end of the cool-off
	touched time.Time
	last    *relay.Failure // of the newest attempt that failed
}

// accountQueue is what one account has in one destination queue.
type accountQueue struct {
	tenant *tenant
	dest   *destQueue
	used   int // of dest.running and dest.claimed
	ready  fair.FIFO[*job]

	// due is when the first delivery in the store is due, as far as known; zero:
	// there is none, or not soon.
	due          time.Time
	dueMeanwhile time.Time // what became due during a claim
	wake         alarm     // at due
	waitsFor     waitsFor  // what it waits for to claim what is due
	admitted     bool      // by the crowded host: it may make one attempt there
	overdue      bool      // stands in scheduler.overdue
	claiming     bool
}

// waitsFor is what an account queue with something due in the store waits for, to
// claim it.
type waitsFor uint8

const (
	waitsForNothing    waitsFor = iota
	waitsForTurn                // in scheduler.claimTurns
	waitsForRoom                // in destQueue.forRoom
	waitsForQuota               // in tenant.forQuota
	waitsForConnection          // in crowdedHost.turns
	waitsForKinds
)

// job is one claimed delivery in memory.
type job struct {
	attempt.Job
	queue *accountQueue
	quick *list.Element // in scheduler.quick, while the attempt does not count as slow
	slow  bool
}

// limit is how many deliveries a destination queue may have in memory. A slow one
// takes only what it can begin at once: the rest would wait for long.
func (dq *destQueue) limit(lim fair.Limits) int {
	if dq.standing == fair.Slow {
		return dq.window.Size(lim)
	}
	return 2 * dq.window.Size(lim)
}

// room is how many more it may have.
func (dq *destQueue) room(lim fair.Limits) int { return dq.limit(lim) - dq.running - dq.claimed }

// rank is the rank in which it asks for a slot, memoryRank that in which it asks
// for a place in memory.
func (dq *destQueue) rank() fair.Rank { return fair.RankOf(dq.standing, dq.running) }

func (dq *destQueue) memoryRank() fair.Rank {
	return fair.RankOf(dq.standing, dq.running+dq.claimed)
}

// isIdle reports whether nothing is known to be due soon, or under way.
func (aq *accountQueue) isIdle() bool {
	return aq.due.IsZero() && !aq.claiming && aq.used == 0
}

// isDue reports whether something in the store is due at now.
func (aq *accountQueue) isDue(now time.Time) bool { return !aq.due.IsZero() && !aq.due.After(now) }

// earliest gives the earlier of two times, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
