package queue

import (
	"tlsrelay/policy/account"
	"tlsrelay/relay/queue/fair"
)

// tenant is an account's part in what all share. Only the loop touches it.
type tenant struct {
	who      account.ID
	inMemory fair.Slots // attempts under way and deliveries not begun
	queues   int        // its account queues

	// forQuota are its account queues that would claim if the account were under its
	// quota: those for slow destinations (1), and the others (0).
	forQuota   [2]fair.FIFO[*accountQueue]
	inForQuota bool // stands in scheduler.forQuota

	learned lessons
}

// tenant finds or makes that of an account.
func (s *scheduler) tenant(who account.ID) *tenant {
	t, ok := s.tenants[who]
	if !ok {
		t = &tenant{who: who}
		s.tenants[who] = t
	}
	return t
}

// count notes that an account has so many more slots in a destination queue, and
// so many more deliveries in memory that have not begun.
func (s *scheduler) count(aq *accountQueue, running, claimed int) {
	dq := aq.dest
	dq.running += running
	dq.claimed += claimed
	aq.used += running + claimed
	*s.running.Of(dq.standing) += running
	*s.claimed.Of(dq.standing) += claimed
	*aq.tenant.inMemory.Of(dq.standing) += running + claimed
}

// updateStanding counts a destination queue under the standing it has by now.
func (s *scheduler) updateStanding(dq *destQueue) {
	was, now := dq.standing, dq.window.Standing(dq.slow)
	if now == was {
		return
	}
	*s.running.Of(was) -= dq.running
	*s.running.Of(now) += dq.running
	*s.claimed.Of(was) -= dq.claimed
	*s.claimed.Of(now) += dq.claimed
	dq.standing = now
	for _, aq := range dq.accounts {
		*aq.tenant.inMemory.Of(was) -= aq.used
		*aq.tenant.inMemory.Of(now) += aq.used
		if now == fair.Healthy && aq.waitsFor == waitsForQuota {
			s.stopWaiting(aq)
			s.waitToClaim(aq)
		}
	}
	if now == fair.Slow {
		// What it has claimed would keep others out of memory, and wait for longer
		// than its lease.
		s.giveBack(s.takeReady(dq))
	}
}

// inMemory is what all queues have in memory. It is shared out as if there were
// twice the slots, so that no slot is idle for want of a claim.
func (s *scheduler) inMemory() fair.Slots { return s.running.Plus(s.claimed) }

// underQuota reports whether the account may have one more delivery in memory. It
// is alone when no other has had anything to do for some minutes.
func (s *scheduler) underQuota(aq *accountQueue, all fair.Slots) bool {
	return aq.tenant.inMemory.UnderQuota(all, aq.dest.memoryRank(), s.o.MaxConnections, len(s.tenants) <= 1)
}

// waitForQuota lets an account queue wait until its account is under its quota.
func (s *scheduler) waitForQuota(aq *accountQueue) {
	t, kind := aq.tenant, 0
	if aq.dest.standing == fair.Slow {
		kind = 1
	}
	aq.waitsFor = waitsForQuota
	s.waiting[waitsForQuota]++
	s.q.metrics.shareWaits.Inc()
	t.forQuota[kind].Push(aq)
	if !t.inForQuota {
		t.inForQuota = true
		s.forQuota.Push(t)
	}
}

// quotaTries is how many accounts are asked at a time whether they are under their
// quota by now. All get their turn, for this is asked whenever an attempt ends.
const quotaTries = 4

// admitUnderQuota lets one account queue claim whose account is under its quota by
// now, if one of the next accounts is.
func (s *scheduler) admitUnderQuota(all fair.Slots) {
	for range min(s.forQuota.Len(), quotaTries) {
		t := s.forQuota.Pop()
		aq := s.nextUnderQuota(t, all)
		if t.inForQuota = t.forQuota[0].Len()+t.forQuota[1].Len() > 0; t.inForQuota {
			s.forQuota.Push(t)
		}
		if aq != nil {
			s.stopWaiting(aq)
			s.queueClaim(aq)
			return
		}
	}
}

// nextUnderQuota takes the next account queue of an account that may claim; nil
// when there is none.
func (s *scheduler) nextUnderQuota(t *tenant, all fair.Slots) *accountQueue {
	for kind := range t.forQuota {
		f := &t.forQuota[kind]
		for f.Len() > 0 && f.Front().waitsFor != waitsForQuota {
			f.Pop() // its destination has become healthy
		}
		if f.Len() > 0 && s.underQuota(f.Front(), all) {
			return f.Pop()
		}
	}
	return nil
}
