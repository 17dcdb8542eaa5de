package queue

import (
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

const (
	// keepIdle is how long a lane with nothing due is remembered, at least while
	// there are not too many.
	keepIdle = 10 * time.Minute
	// leastSweep is how many lanes there may be before those with nothing to do go
	// out of memory.
	leastSweep = 4096
)

// sub finds or makes the part that an account has in a lane.
func (s *scheduler) sub(key relay.Lane, who account.ID, now time.Time) *sub {
	l, ok := s.lanes[key]
	if ok {
		if b := l.subs[who]; b != nil {
			return b
		}
	}
	t := s.tenant(who)
	if !ok {
		l = s.makeLane(key, t, now)
	}
	b := &sub{tenant: t, lane: l}
	l.subs[who] = b
	t.subs++
	return b
}

// makeLane brings a lane into memory, and what the account knows of it.
func (s *scheduler) makeLane(key relay.Lane, t *tenant, now time.Time) *lane {
	if len(s.lanes) >= s.sweepAt {
		s.sweep(0, now)
	}
	l := &lane{key: key, subs: make(map[account.ID]*sub, 1), standing: Unknown, touched: now}
	if known, ok := t.memos.take(key); ok {
		l.pace, l.last = known.pace, known.last
		l.standing = l.pace.standing(0)
	}
	l.wake.fire = func(now time.Time) { s.place(l, now) }
	s.lanes[key] = l
	return l
}

// drop forgets a sub that has nothing to do.
func (s *scheduler) drop(b *sub) {
	l, t := b.lane, b.tenant
	if l.subs[t.who] == b {
		delete(l.subs, t.who)
		t.subs--
	}
}

// forget drops what has had nothing to do for long.
func (s *scheduler) forget(now time.Time) {
	s.sweep(keepIdle, now)
	for who, t := range s.tenants {
		if t.memos.age(now); t.subs == 0 && t.memos.empty() && !t.waits && t.use == (use{}) {
			delete(s.tenants, who)
		}
	}
}

// sweep takes lanes out of memory that have had nothing to do for so long. The
// accounts that used them remember what was learned.
func (s *scheduler) sweep(idle time.Duration, now time.Time) {
	for key, l := range s.lanes {
		for _, b := range l.subs {
			if !b.idle() {
				continue
			}
			if l.pace != (pace{}) && now.Sub(l.touched) < keepIdle {
				b.tenant.memos.put(key, memo{l.pace, l.last}, now)
			}
			s.drop(b)
		}
		if len(l.subs) == 0 && l.busy+l.held == 0 && now.Sub(l.touched) >= idle {
			s.alarms.off(&l.wake)
			delete(s.lanes, key)
		}
	}
	s.sweepAt = max(leastSweep, 2*len(s.lanes))
}
