package queue

import (
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/queue/fair"
)

const (
	// keepIdle is how long a destination queue with nothing due is kept in memory,
	// at least while there are not too many.
	keepIdle = 10 * time.Minute
	// minSweep is how many destination queues there may be before those with nothing
	// to do go out of memory.
	minSweep = 4096
)

// accountQueue finds or makes what an account has in a destination queue.
func (s *scheduler) accountQueue(key relay.Lane, who account.ID, now time.Time) *accountQueue {
	dq, ok := s.queues[key]
	if ok {
		if aq := dq.accounts[who]; aq != nil {
			return aq
		}
	}
	t := s.tenant(who)
	if !ok {
		dq = s.makeQueue(key, t, now)
	}
	aq := &accountQueue{tenant: t, dest: dq}
	dq.accounts[who] = aq
	t.queues++
	return aq
}

// makeQueue brings a destination queue into memory, with what the account
// remembers of it.
func (s *scheduler) makeQueue(key relay.Lane, t *tenant, now time.Time) *destQueue {
	if len(s.queues) >= s.sweepAt {
		s.sweep(0, now)
	}
	dq := &destQueue{key: key, accounts: make(map[account.ID]*accountQueue, 1), standing: fair.Unproven, touched: now}
	if known, ok := t.learned.take(key); ok {
		dq.window, dq.last = known.window, known.last
		dq.standing = dq.window.Standing(0)
	}
	dq.wake.fire = func(now time.Time) { s.schedule(dq, now) }
	s.queues[key] = dq
	return dq
}

// drop takes an account queue that has nothing to do out of memory.
func (s *scheduler) drop(aq *accountQueue) {
	dq, t := aq.dest, aq.tenant
	if dq.accounts[t.who] == aq {
		delete(dq.accounts, t.who)
		t.queues--
	}
}

// forget takes out of memory what has had nothing to do for long.
func (s *scheduler) forget(now time.Time) {
	s.sweep(keepIdle, now)
	for who, t := range s.tenants {
		t.learned.expire(now)
		if t.queues == 0 && t.learned.empty() && !t.inForQuota && t.inMemory == (fair.Slots{}) {
			delete(s.tenants, who)
		}
	}
}

// sweep takes destination queues out of memory that have had nothing to do for so
// long. The accounts that used them remember what was learned.
func (s *scheduler) sweep(idle time.Duration, now time.Time) {
	for key, dq := range s.queues {
		for _, aq := range dq.accounts {
			if !aq.isIdle() {
				continue
			}
			if dq.window != (fair.Window{}) && now.Sub(dq.touched) < keepIdle {
				aq.tenant.learned.put(key, lesson{dq.window, dq.last}, now)
			}
			s.drop(aq)
		}
		if len(dq.accounts) == 0 && dq.running+dq.claimed == 0 && now.Sub(dq.touched) >= idle {
			s.alarms.off(&dq.wake)
			delete(s.queues, key)
		}
	}
	s.sweepAt = max(minSweep, 2*len(s.queues))
}
