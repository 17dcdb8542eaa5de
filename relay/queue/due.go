package queue

import (
	"time"

	"tlsrelay/relay"
)

// noteDue notes that something of an account queue is due at a time.
func (s *scheduler) noteDue(aq *accountQueue, due, now time.Time) {
	if aq.claiming {
		aq.dueMeanwhile = earliest(aq.dueMeanwhile, due)
		return
	}
	aq.due = earliest(aq.due, due)
	s.reschedule(aq, now)
}

// noteBacklogs notes what is due in several queues. It makes no queue for what is
// not due soon.
func (s *scheduler) noteBacklogs(all []relay.Backlog, now time.Time) {
	for _, b := range all {
		if s.draining {
			return
		}
		if _, ok := s.queues[b.Lane]; !ok && b.Due.Sub(now) > s.horizon {
			continue
		}
		s.noteDue(s.accountQueue(b.Lane, b.Account, now), b.Due, now)
	}
}

// reschedule acts on the due time of an account queue: it lets the queue claim,
// sets its alarm, or takes it out of memory. What is not due soon is for the store
// to remember.
func (s *scheduler) reschedule(aq *accountQueue, now time.Time) {
	if aq.claiming {
		return
	}
	if aq.due.Sub(now) > s.horizon {
		aq.due = time.Time{}
	}
	switch {
	case aq.isDue(now):
		s.alarms.off(&aq.wake)
		if aq.waitsFor == waitsForNothing {
			s.waitToClaim(aq)
		}
		s.schedule(aq.dest, now)
	case !aq.due.IsZero():
		if aq.wake.fire == nil {
			aq.wake.fire = func(now time.Time) { s.reschedule(aq, now) }
		}
		s.alarms.set(&aq.wake, aq.due)
	default:
		s.alarms.off(&aq.wake)
		if aq.isIdle() {
			s.drop(aq)
		}
	}
}
