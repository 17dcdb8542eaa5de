package queue

import (
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// putOffBatch is how many overdue deliveries of a dead lane are put off in
// one go.
const putOffBatch = 32

// claimed is what a claim came to.
type claimed struct {
	sub      *sub
	promised int // slots of the lane that were set aside for it
	got      []relay.Claimed
	next     time.Time
	err      error
	putOff   bool
	// elsewhere is what became due in other lanes meanwhile.
	elsewhere []relay.Backlog
}

// stall lets a sub with something due wait until there is room in its lane or,
// where that goes to a crowded place, for its turn there.
func (s *scheduler) stall(b *sub) {
	l := b.lane
	l.hungry++
	b.place = stalled
	if l.crowded() {
		b.place = sited
		l.site.turns.push(b)
	} else {
		l.stalled.push(b)
	}
	s.waiting[b.place]++
}

// offer has as many subs of a lane wait for their turn to claim as there is room
// for.
func (s *scheduler) offer(l *lane) {
	if !s.canClaim(l) {
		return
	}
	for l.stalled.len() > 0 && l.offered < l.room(s.lim) {
		b := l.stalled.pop()
		s.leave(b)
		s.enqueue(b)
	}
}

// enqueue has a sub wait for its turn to claim, or for its account's share.
func (s *scheduler) enqueue(b *sub) {
	l := b.lane
	l.hungry++
	if !s.mayHold(b, s.inMemory()) {
		s.block(b)
		return
	}
	b.place = enqueued
	s.waiting[enqueued]++
	l.offered++
	s.claims.of[rankOf(l.standing, l.busy+l.held)].push(b)
}

// leave takes a sub from where it waits; the caller has taken it out there.
func (s *scheduler) leave(b *sub) {
	if b.place == nowhere {
		return
	}
	s.waiting[b.place]--
	b.lane.hungry--
	if b.place == enqueued {
		b.lane.offered--
	}
	b.place = nowhere
}

// nextClaim takes the sub whose turn it is to claim.
func (s *scheduler) nextClaim(memory use, now time.Time) *sub {
	for {
		b, r := s.claims.next(func(r rank) bool { return memory.permits(r, 2*s.q.o.MaxConnections) })
		if b == nil {
			return nil
		}
		l := b.lane
		fits := s.canClaim(l) && !l.pace.resting(now) && (b.admitted || !l.crowded())
		s.leave(b)
		switch {
		case b.claiming || !b.due(now):
			s.settle(b, now)
		case !fits:
			b.admitted = false
			s.stall(b)
			s.place(l, now)
		case r != rankOf(l.standing, l.busy+l.held):
			s.enqueue(b)
		case !s.mayHold(b, memory):
			l.hungry++
			s.block(b)
			s.offer(l)
		default:
			return b
		}
	}
}

// claim lets a sub claim its share of the room in its lane.
func (s *scheduler) claim(b *sub, memory use, now time.Time) {
	l := b.lane
	n := max(1, l.room(s.lim)/(l.hungry+1))
	n = min(n, s.batch(l.standing, memory))
	if l.standing != Proven {
		n = min(n, b.tenant.use.eagerly(memory, s.q.o.MaxConnections))
	}
	if b.admitted {
		n, b.admitted = 1, false
	}
	s.take(b, 0, n)
	s.begin(b, func() claimed {
		c := claimed{sub: b, promised: n}
		c.got, c.next, c.err = s.q.claim(l.key, b, n, 0)
		return c
	})
}

// batch bounds one claim, which permits has allowed for one delivery only: a
// laggard's goes no further, and that of an unknown lane only while half of
// the memory is free.
func (s *scheduler) batch(st Standing, memory use) int {
	half := s.q.o.MaxConnections
	switch st {
	case Laggard:
		return 1
	case Unknown:
		return max(1, half-memory.total())
	}
	return 2*half - memory.total()
}

// begin runs a claim beside the loop.
func (s *scheduler) begin(b *sub, claim func() claimed) {
	b.claiming = true
	s.claiming++
	s.q.pool.Go(func() { s.claimed <- claim() })
}

// claim takes up to n deliveries that have been due for the given time.
func (c *crew) claim(key relay.Lane, b *sub, n int, overdue time.Duration) ([]relay.Claimed, time.Time, error) {
	now := time.Now()
	lease := func(attempts int) time.Time { return now.Add(c.o.Schedule.Delay(attempts)) }
	return c.store.Claim(c.commits, key, b.tenant.who, now.Add(-overdue), n, lease, c.inHand.has)
}

// took takes in what a claim came to.
func (s *scheduler) took(c claimed, now time.Time) {
	b := c.sub
	l := b.lane
	s.claiming--
	b.claiming = false
	s.take(b, 0, -c.promised)
	if c.putOff {
		s.putting = false
	}
	switch {
	case c.err != nil:
		s.q.metrics.claimFailures.Inc()
		s.q.log.Error("cannot claim", zap.String("destination", l.key.Destination), zap.Error(c.err))
		c.next = now.Add(claimRetry)
	case len(c.got) == 0 && !c.next.IsZero() && !c.next.After(now) && !c.putOff:
		c.next = now.Add(claimRetry)
	}
	b.next = earliest(c.next, b.meantime)
	b.meantime = time.Time{}
	switch {
	case s.draining:
		var back []*job
		for _, x := range c.got {
			back = append(back, &job{message: x.Message, delivery: x.Delivery})
		}
		s.giveBack(back)
	default:
		for _, x := range c.got {
			s.q.inHand.add(x.Delivery.Key)
			s.hold(b, x, now)
		}
	}
	s.markAll(c.elsewhere, now)
	s.settle(b, now)
	if c.putOff && l.pace.dead() {
		s.seekOverdue(l, now)
	}
	s.place(l, now)
}

// seekOverdue notes what has been waiting in a dead lane for as long as the
// longest retry delay. Probes alone would never come to the end of a long
// backlog, and senders would hear neither of the delay nor of the end. So it
// is put off without an attempt of its own, a batch at a time over all lanes.
func (s *scheduler) seekOverdue(l *lane, now time.Time) {
	for _, b := range l.subs {
		if !b.overdue && !b.claiming && b.due(now.Add(-s.q.o.Schedule.RetryMax)) {
			b.overdue = true
			s.overdue.push(b)
		}
	}
}

// putOff lets one batch of overdue deliveries fail by their lane's last
// failure.
func (s *scheduler) putOff(now time.Time) {
	patience := s.q.o.Schedule.RetryMax
	for !s.putting && s.overdue.len() > 0 {
		b := s.overdue.pop()
		b.overdue = false
		if b.claiming || !b.due(now.Add(-patience)) || !b.lane.pace.dead() {
			continue
		}
		s.putting = true
		f := suspended(b.lane.last)
		s.begin(b, func() claimed {
			c := claimed{sub: b, putOff: true}
			var got []relay.Claimed
			got, c.next, c.err = s.q.claim(b.lane.key, b, putOffBatch, patience)
			for _, x := range got {
				due, elsewhere := s.q.putOff(x, f)
				c.elsewhere = append(c.elsewhere, elsewhere...)
				c.next = earliest(c.next, due)
			}
			return c
		})
	}
}

// putOff concludes an attempt that was not made, and says when the next is
// due and what is, elsewhere. Neither is known when that fails: the lease ends
// by itself.
func (c *crew) putOff(x relay.Claimed, f relay.Failure) (due time.Time, elsewhere []relay.Backlog) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(x.Delivery.Key, p)
		}
	}()
	r := c.suspend(x, f)
	if withheld(r) {
		return c.withhold(x), nil
	}
	t, ok := c.conclude(x.Message, x.Delivery, r, false)
	if !ok {
		return time.Time{}, nil
	}
	if !t.Done {
		due = t.After.Due
	}
	return due, reported(t)
}

// suspend is the result of an attempt that was not made. It says what is demanded
// now all the same: the end of the policy window decides by that, and a report
// has no body where anything is.
func (c *crew) suspend(x relay.Claimed, f relay.Failure) relay.Result {
	d := x.Delivery
	_, demanding, err := c.demands(c.commits, x.Message, &d)
	if err != nil {
		return c.unsent(d, err)
	}
	r := relay.FailAll(d, f, time.Now())
	r.Demanding = demanding
	if r.Attempt.Ruling != policy.Block {
		return r // nor does the guard count what was not attempted
	}
	return c.guarded(d, r)
}

// suspended is the failure of a delivery that was not tried because its
// destination is dead.
func suspended(last *relay.Failure) relay.Failure {
	f := relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachDestination, Reason: events.ConnectFail, Status: "4.4.1",
		Reply: relay.Reply{Text: "delivery temporarily suspended"},
	}
	if last != nil && last.Class == relay.Temporary {
		f.Reason, f.Status = last.Reason, last.Status
		f.Reply.Text += ": " + last.Reply.String()
	}
	return f
}
