package queue

import (
	"time"

	"go.uber.org/zap"

	"tlsrelay/relay"
	"tlsrelay/relay/queue/attempt"
	"tlsrelay/relay/queue/fair"
)

const (
	// maxClaims is how many claims run at a time.
	maxClaims = 4
	// claimRetry is the pause after a claim that failed, or that gave nothing
	// although something was said to be due.
	claimRetry = time.Second
)

// claimed is what a claim came to.
type claimed struct {
	queue    *accountQueue
	promised int // places in memory that were kept for it
	got      []relay.Claimed
	next     time.Time
	err      error
	// suspended: the claim was for overdue deliveries, which have got a deferral
	// without an attempt.
	suspended bool
	elsewhere []relay.Backlog // what became due in other queues meanwhile
}

// waitToClaim lets an account queue with something due wait for room in its
// destination queue or, where that goes to a crowded host, for its turn there.
func (s *scheduler) waitToClaim(aq *accountQueue) {
	dq := aq.dest
	dq.waiting++
	aq.waitsFor = waitsForRoom
	if dq.isCrowded() {
		aq.waitsFor = waitsForConnection
		dq.crowded.turns.Push(aq.tenant, aq)
	} else {
		dq.forRoom.Push(aq)
	}
	s.waiting[aq.waitsFor]++
}

// queueClaims lets as many account queues of a destination queue wait for their
// turn to claim as there is room for.
func (s *scheduler) queueClaims(dq *destQueue) {
	if !s.canClaim(dq) {
		return
	}
	for dq.forRoom.Len() > 0 && dq.claimTurns < dq.room(s.limits) {
		aq := dq.forRoom.Pop()
		s.stopWaiting(aq)
		s.queueClaim(aq)
	}
}

// queueClaim lets an account queue wait for its turn to claim, or for its
// account's quota.
func (s *scheduler) queueClaim(aq *accountQueue) {
	dq := aq.dest
	dq.waiting++
	if !s.underQuota(aq, s.inMemory()) {
		s.waitForQuota(aq)
		return
	}
	aq.waitsFor = waitsForTurn
	s.waiting[waitsForTurn]++
	dq.claimTurns++
	s.claimTurns.Push(dq.memoryRank(), aq.tenant, aq)
}

// stopWaiting notes that an account queue waits no longer. The caller has taken it
// out of where it waited.
func (s *scheduler) stopWaiting(aq *accountQueue) {
	if aq.waitsFor == waitsForNothing {
		return
	}
	s.waiting[aq.waitsFor]--
	aq.dest.waiting--
	if aq.waitsFor == waitsForTurn {
		aq.dest.claimTurns--
	}
	aq.waitsFor = waitsForNothing
}

// canClaim reports whether a destination queue may claim. It waits until a good
// part of the window is free, so that claims come in batches.
func (s *scheduler) canClaim(dq *destQueue) bool {
	return dq.waiting > 0 && dq.room(s.limits) > 0 && dq.claimed <= dq.limit(s.limits)/4
}

// nextClaim takes the account queue whose turn it is to claim; nil when there is
// none.
func (s *scheduler) nextClaim(memory fair.Slots, now time.Time) *accountQueue {
	for {
		aq, r, ok := s.claimTurns.Pop(func(r fair.Rank) bool { return memory.FreeFor(r, 2*s.o.MaxConnections) })
		if !ok {
			return nil
		}
		dq := aq.dest
		fits := s.canClaim(dq) && !dq.window.CoolingOff(now) && (aq.admitted || !dq.isCrowded())
		s.stopWaiting(aq)
		switch {
		case aq.claiming || !aq.isDue(now):
			s.reschedule(aq, now)
		case !fits:
			aq.admitted = false
			s.waitToClaim(aq)
			s.schedule(dq, now)
		case r != dq.memoryRank():
			s.queueClaim(aq)
		case !s.underQuota(aq, memory):
			dq.waiting++
			s.waitForQuota(aq)
			s.queueClaims(dq)
		default:
			return aq
		}
	}
}

// claim lets an account queue claim its part of the room in its destination queue.
func (s *scheduler) claim(aq *accountQueue, memory fair.Slots, now time.Time) {
	dq := aq.dest
	n := max(1, dq.room(s.limits)/(dq.waiting+1))
	n = min(n, s.maxBatch(dq.standing, memory))
	if dq.standing != fair.Healthy {
		n = min(n, aq.tenant.inMemory.Batch(memory, s.o.MaxConnections))
	}
	if aq.admitted {
		n, aq.admitted = 1, false
	}
	s.count(aq, 0, n)
	s.beginClaim(aq, func() claimed {
		c := claimed{queue: aq, promised: n}
		c.got, c.next, c.err = s.claimFromStore(aq, n, 0)
		return c
	})
}

// maxBatch bounds one claim, for which FreeFor has allowed one delivery only: a
// slow destination gets no more, an unproven one only while half of the memory is
// free.
func (s *scheduler) maxBatch(st fair.Standing, memory fair.Slots) int {
	half := s.o.MaxConnections
	switch st {
	case fair.Slow:
		return 1
	case fair.Unproven:
		return max(1, half-memory.Total())
	}
	return 2*half - memory.Total()
}

// beginClaim runs a claim beside the loop.
func (s *scheduler) beginClaim(aq *accountQueue, claim func() claimed) {
	aq.claiming = true
	s.claiming++
	s.beside.Go(func() { s.claims <- claim() })
}

// claimFromStore claims up to n deliveries that have been due for the given time.
// It runs beside the loop.
func (s *scheduler) claimFromStore(aq *accountQueue, n int, overdue time.Duration) ([]relay.Claimed, time.Time, error) {
	now := time.Now()
	lease := func(attempts int) time.Time { return now.Add(s.o.Schedule.Delay(attempts)) }
	return s.q.store.Claim(s.commits, aq.dest.key, aq.tenant.who, now.Add(-overdue), n, lease, s.inHand.has)
}

// endClaim takes in what a claim came to.
func (s *scheduler) endClaim(c claimed, now time.Time) {
	aq := c.queue
	dq := aq.dest
	s.claiming--
	aq.claiming = false
	s.count(aq, 0, -c.promised)
	if c.suspended {
		s.suspending = false
	}
	switch {
	case c.err != nil:
		s.q.metrics.claimFailures.Inc()
		s.q.log.Error("cannot claim", zap.String("destination", dq.key.Destination), zap.Error(c.err))
		c.next = now.Add(claimRetry)
	case len(c.got) == 0 && !c.next.IsZero() && !c.next.After(now) && !c.suspended:
		c.next = now.Add(claimRetry)
	}
	aq.due = earliest(c.next, aq.dueMeanwhile)
	aq.dueMeanwhile = time.Time{}
	if s.draining {
		var back []*job
		for _, x := range c.got {
			back = append(back, &job{Job: attempt.Job{Message: x.Message, Delivery: x.Delivery}})
		}
		s.giveBack(back)
	} else {
		for _, x := range c.got {
			s.inHand.add(x.Delivery.Key)
			s.addReady(aq, x, now)
		}
	}
	s.noteBacklogs(c.elsewhere, now)
	s.reschedule(aq, now)
	if c.suspended && dq.window.Dead() {
		s.noteOverdue(dq, now)
	}
	s.schedule(dq, now)
}
