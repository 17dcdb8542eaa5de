package queue

import (
	"time"

	"tlsrelay/relay"
)

// suspendBatch is how many overdue deliveries of a dead destination are suspended
// in one go.
const suspendBatch = 32

// noteOverdue notes what has been waiting for a dead destination for as long as
// the longest retry delay. Probes alone would never come to the end of a long
// backlog, and senders would hear neither of the delay nor of the end. So such a
// delivery is suspended: it gets a deferral without an attempt of its own.
func (s *scheduler) noteOverdue(dq *destQueue, now time.Time) {
	for _, aq := range dq.accounts {
		if !aq.overdue && !aq.claiming && aq.isDue(now.Add(-s.o.Schedule.RetryMax)) {
			aq.overdue = true
			s.overdue.Push(aq)
		}
	}
}

// suspendOverdue suspends overdue deliveries, a batch at a time over all queues.
// They get the last failure of their destination.
func (s *scheduler) suspendOverdue(now time.Time) {
	overdue := s.o.Schedule.RetryMax
	for !s.suspending && s.overdue.Len() > 0 {
		aq := s.overdue.Pop()
		aq.overdue = false
		if aq.claiming || !aq.isDue(now.Add(-overdue)) || !aq.dest.window.Dead() {
			continue
		}
		s.suspending = true
		last := aq.dest.last
		s.beginClaim(aq, func() claimed {
			c := claimed{queue: aq, suspended: true}
			var got []relay.Claimed
			got, c.next, c.err = s.claimFromStore(aq, suspendBatch, overdue)
			for _, x := range got {
				due, elsewhere := s.maker.Suspend(x, last)
				c.elsewhere = append(c.elsewhere, elsewhere...)
				c.next = earliest(c.next, due)
			}
			return c
		})
	}
}
