package queue

import (
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// tenant is an account's part in what all share. Only the loop touches it.
type tenant struct {
	who  account.ID
	use  use // of memory: attempts under way, and deliveries not begun, by the standing of their lanes
	subs int

	// blocked are its subs that would claim if the account might hold more: those
	// of laggards, and the others.
	blocked [2]fifo[*sub]
	waits   bool // stands in scheduler.blocked

	memos memos
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

// mayHold reports whether the account of b may have one more delivery of b's lane
// in memory. It is alone when no other has had anything to do for some minutes.
func (s *scheduler) mayHold(b *sub, all use) bool {
	return b.tenant.use.mayHold(all, rankOf(b.lane.standing, b.lane.busy+b.lane.held), s.q.o.MaxConnections, len(s.tenants) <= 1)
}

// block lets a sub wait until its account may hold more.
func (s *scheduler) block(b *sub) {
	t, kind := b.tenant, 0
	if b.lane.standing == Laggard {
		kind = 1
	}
	b.place = blocked
	s.waiting[blocked]++
	s.q.metrics.shareWaits.Inc()
	t.blocked[kind].push(b)
	if !t.waits {
		t.waits = true
		s.blocked.push(t)
	}
}

// unblockTries is how many accounts are asked at a time whether they may hold more
// by now. All get their turn, for this is asked whenever an attempt ends.
const unblockTries = 4

// unblock lets one sub claim whose account may hold more by now, if one of the
// next accounts may.
func (s *scheduler) unblock(all use) {
	for range min(s.blocked.len(), unblockTries) {
		t := s.blocked.pop()
		b := s.unblocked(t, all)
		if t.waits = t.blocked[0].len()+t.blocked[1].len() > 0; t.waits {
			s.blocked.push(t)
		}
		if b != nil {
			s.leave(b)
			s.enqueue(b)
			return
		}
	}
}

// unblocked takes the next sub of an account that may claim.
func (s *scheduler) unblocked(t *tenant, all use) *sub {
	for kind := range t.blocked {
		f := &t.blocked[kind]
		for f.len() > 0 && f.front().place != blocked {
			f.pop() // it went another way
		}
		if f.len() > 0 && s.mayHold(f.front(), all) {
			return f.pop()
		}
	}
	return nil
}

// memos is what is known of lanes that are not in memory because nothing of them
// is due: each account remembers those it has used. Two generations bound their
// number and their age.
type memos struct {
	young, elder map[relay.Lane]memo
	since        time.Time // of the young ones
}

// memo is what a lane has learned.
type memo struct {
	pace pace
	last *relay.Failure
}

// maxMemos bounds one generation.
const maxMemos = 4096

func (m *memos) put(key relay.Lane, x memo, now time.Time) {
	if len(m.young) >= maxMemos {
		m.turn(now)
	}
	if m.young == nil {
		m.young, m.since = make(map[relay.Lane]memo), now
	}
	m.young[key] = x
}

// take gives what is known of a lane, which is in memory from now on.
func (m *memos) take(key relay.Lane) (memo, bool) {
	x, ok := m.young[key]
	if !ok {
		x, ok = m.elder[key]
	}
	delete(m.young, key)
	delete(m.elder, key)
	return x, ok
}

// age forgets what is too old.
func (m *memos) age(now time.Time) {
	if now.Sub(m.since) >= keepIdle {
		m.turn(now)
	}
}

func (m *memos) turn(now time.Time) { m.young, m.elder, m.since = nil, m.young, now }

func (m *memos) empty() bool { return len(m.young)+len(m.elder) == 0 }
