package queue

import (
	"container/list"
	"context"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

const (
	// slowAfter an attempt counts as slow, and its lane as a laggard.
	slowAfter = 10 * time.Second
	// claimers is how many claims run at a time.
	claimers = 4
	// claimRetry is the pause after a claim that failed, or that gave nothing
	// although something was said to be due.
	claimRetry = time.Second
)

// scheduler is the loop: the one goroutine that owns the lanes. The channels
// are how others reach it; everything else is its own.
type scheduler struct {
	q   *crew
	lim limits

	asks   chan *acceptance // unbuffered: who was heard gets an answer
	hands  chan *acceptance // unbuffered: who was heard is taken care of
	marks  chan []relay.Backlog
	calls  chan func(now time.Time)
	rescan chan struct{}
	gone   chan struct{} // closed when the loop ends

	work    chan *job
	done    chan finished
	claimed chan claimed

	lanes     map[relay.Lane]*lane
	sweepAt   int // lanes at which those with nothing to do go
	tenants   map[account.ID]*tenant
	sites     map[string]*site
	starts    rings
	claims    claimTurns
	blocked   fifo[*tenant] // that have subs waiting for their share
	waiting   [wheres]int   // subs with something due, by where they wait
	overdue   fifo[*sub]    // in dead lanes, to be put off without an attempt
	alarms    alarms
	running   list.List // of *job, the longest first; slow ones leave
	slowWake  alarm
	busy      use // attempts under way
	held      use // deliveries in memory, not begun
	workers   int // goroutines, busy or idle
	claiming  int // claims under way
	putting   bool
	draining  bool
	releasing int
	// horizon is how soon what waits in the store has to be due to be kept in
	// memory: by then it has been found by another scan.
	horizon time.Duration
}

func newScheduler(q *crew) *scheduler {
	n := q.o.MaxConnections
	s := &scheduler{
		q: q,
		lim: limits{
			window:  q.o.MaxPerDestination,
			restMin: q.o.Schedule.RetryAfter / 10,
			restMax: 2 * q.o.Schedule.RetryAfter,
		},
		asks: make(chan *acceptance), hands: make(chan *acceptance),
		marks: make(chan []relay.Backlog), calls: make(chan func(time.Time)),
		rescan: make(chan struct{}, 1), gone: make(chan struct{}),
		work: make(chan *job, n), done: make(chan finished, n),
		claimed: make(chan claimed, claimers+1),
		lanes:   make(map[relay.Lane]*lane),
		tenants: make(map[account.ID]*tenant), sites: make(map[string]*site),
		sweepAt: leastSweep, horizon: 2 * q.o.Rescan,
	}
	s.slowWake.fire = s.markSlow
	return s
}

// loop runs until ctx has ended and everything under way has, too.
func (s *scheduler) loop(ctx context.Context) {
	stop := ctx.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var set time.Time
	for !s.drained() {
		if len(s.alarms) > 0 && !s.alarms[0].at.Equal(set) {
			set = s.alarms[0].at
			timer.Reset(time.Until(set))
		}
		select {
		case a := <-s.asks:
			s.reserve(a, time.Now())
		case a := <-s.hands:
			s.handed(a, time.Now())
		case f := <-s.done:
			s.finish(f, time.Now())
		case c := <-s.claimed:
			s.took(c, time.Now())
		case bs := <-s.marks:
			s.markAll(bs, time.Now())
		case call := <-s.calls:
			call(time.Now())
		case <-timer.C:
			set = time.Time{}
			s.ring(time.Now())
		case <-stop:
			stop = nil
			s.drain()
		case <-s.q.commits.Done():
			return
		}
		s.dispatch(time.Now())
	}
}

// drained reports whether the loop may end.
func (s *scheduler) drained() bool {
	return s.draining && s.busy.total() == 0 && s.held.total() == 0 && s.claiming == 0 && s.releasing == 0
}

// ring fires what is due.
func (s *scheduler) ring(now time.Time) {
	for a, ok := s.alarms.due(now); ok; a, ok = s.alarms.due(now) {
		a.fire(now)
	}
}

// take moves the slots of an account in a lane, and keeps the books of all.
func (s *scheduler) take(b *sub, busy, held int) {
	l := b.lane
	l.busy += busy
	l.held += held
	b.used += busy + held
	*s.busy.of(l.standing) += busy
	*s.held.of(l.standing) += held
	*b.tenant.use.of(l.standing) += busy + held
}

// restand books a lane under what it stands for now.
func (s *scheduler) restand(l *lane) {
	was, now := l.standing, l.pace.standing(l.slow)
	if now == was {
		return
	}
	*s.busy.of(was) -= l.busy
	*s.busy.of(now) += l.busy
	*s.held.of(was) -= l.held
	*s.held.of(now) += l.held
	l.standing = now
	for _, b := range l.subs {
		*b.tenant.use.of(was) -= b.used
		*b.tenant.use.of(now) += b.used
		if now == Proven && b.place == blocked {
			s.leave(b)
			s.stall(b)
		}
	}
	if now == Laggard {
		// What it holds would crowd others out of memory, and outwait its
		// lease.
		s.giveBack(s.unhold(l))
	}
}

// unhold takes what was claimed for a lane and not begun out of memory.
func (s *scheduler) unhold(l *lane) (back []*job) {
	for l.ready.len() > 0 {
		for b := l.ready.pop(); b.waiting.len() > 0; {
			back = append(back, b.waiting.pop())
			s.take(b, 0, -1)
		}
	}
	return back
}

// inMemory is all that lanes have, against which claims and promises are
// shared out as if there were twice the slots: enough that no slot is idle
// for want of a claim.
func (s *scheduler) inMemory() use {
	return use{s.busy.unknown + s.held.unknown, s.busy.proven + s.held.proven, s.busy.laggard + s.held.laggard}
}

// place puts a lane where its turn will come: to begin an attempt, to claim,
// or to be woken when its rest is over.
func (s *scheduler) place(l *lane, now time.Time) {
	l.touched = now
	if s.draining {
		return
	}
	if l.pace.resting(now) {
		if l.ready.len() > 0 || l.hungry > 0 {
			s.alarms.set(&l.wake, l.pace.until)
		}
		return
	}
	if s.canStart(l) {
		s.starts.add(l, rankOf(l.standing, l.busy), &l.starts)
	}
	s.offer(l)
}

func (s *scheduler) canStart(l *lane) bool {
	return l.ready.len() > 0 && l.busy < l.pace.size(s.lim)
}

// canClaim holds back until a good part of the window is free, so that claims
// come in batches.
func (s *scheduler) canClaim(l *lane) bool {
	return l.hungry > 0 && l.room(s.lim) > 0 && l.held <= l.limit(s.lim)/4
}

// dispatch gives away every slot and every claim that may be given now.
func (s *scheduler) dispatch(now time.Time) {
	if s.draining {
		return
	}
	n := s.q.o.MaxConnections
	for s.busy.total() < n {
		l := s.starts.next(
			func(r rank) bool { return s.busy.permits(r, n) },
			func(l *lane, r rank) bool {
				l.starts &^= 1 << r
				return r == rankOf(l.standing, l.busy) && s.canStart(l) && !l.pace.resting(now)
			})
		if l == nil {
			break
		}
		s.start(l, now)
		s.place(l, now)
	}
	for s.claiming < claimers {
		memory := s.inMemory()
		s.unblock(memory)
		b := s.nextClaim(memory, now)
		if b == nil {
			break
		}
		s.claim(b, memory, now)
		s.place(b.lane, now)
	}
	s.putOff(now)
	s.q.metrics.observe(s)
}

// start begins an attempt for the account whose turn it is in the lane.
func (s *scheduler) start(l *lane, now time.Time) {
	b := l.ready.pop()
	j := b.waiting.pop()
	if b.waiting.len() > 0 {
		l.ready.push(b)
	}
	s.take(b, 0, -1)
	if !s.fresh(j, now) {
		s.giveBack([]*job{j})
		return
	}
	s.take(b, 1, 0)
	j.began = now
	j.running = s.running.PushBack(j)
	if s.slowWake.index == 0 {
		s.alarms.set(&s.slowWake, now.Add(slowAfter))
	}
	if s.busy.total() > s.workers {
		s.workers++
		s.q.pool.Go(func() { s.q.worker(s.work, s.done) })
	}
	s.work <- j // never blocks: as deep as there are slots
}

// fresh reports whether enough of the lease is left to begin. What has waited
// for too long is given back, to be claimed anew.
func (s *scheduler) fresh(j *job, now time.Time) bool {
	d := j.held()
	return d.Due.Sub(now) > s.q.o.Schedule.Delay(d.Attempts)/4
}

// markSlow makes laggards of the lanes whose attempts take long, and has their
// leases kept.
func (s *scheduler) markSlow(now time.Time) {
	for e := s.running.Front(); e != nil; e = s.running.Front() {
		j := e.Value.(*job)
		if now.Sub(j.began) < slowAfter {
			s.alarms.set(&s.slowWake, j.began.Add(slowAfter))
			return
		}
		s.running.Remove(e)
		j.running, j.slow = nil, true
		if !j.brief() {
			// Not by the loop: a renewal may hold j.mu and wait for it.
			s.q.pool.Go(func() {
				j.mu.Lock()
				defer j.mu.Unlock()
				s.q.keep(j)
			})
		}
		l := j.sub.lane
		l.slow++
		s.restand(l)
		s.place(l, now)
	}
}

// finish takes back the slot of an attempt, and what it taught.
func (s *scheduler) finish(f finished, now time.Time) {
	j, b := f.job, f.job.sub
	l := b.lane
	s.q.inHand.remove(j.delivery.Key)
	if j.running != nil {
		s.running.Remove(j.running)
	}
	if j.slow {
		l.slow--
	}
	s.take(b, -1, 0)
	l.pace = l.pace.learn(f.feedback, j.began, now, s.lim)
	if f.failure != nil {
		l.last = f.failure
	}
	s.restand(l)
	if f.crowded != "" {
		s.crowd(l, f.crowded, now)
	} else {
		s.vacate(f.hosts, now)
	}
	if !f.due.IsZero() {
		s.mark(b, f.due, now)
	}
	s.markAll(f.elsewhere, now)
	if l.pace.dead() && f.feedback == relay.Trouble {
		s.seekOverdue(l, now)
	}
	s.place(l, now)
}

// mark notes that something of an account is due at a time.
func (s *scheduler) mark(b *sub, due, now time.Time) {
	if b.claiming {
		b.meantime = earliest(b.meantime, due)
		return
	}
	b.next = earliest(b.next, due)
	s.settle(b, now)
}

func (s *scheduler) markAll(bs []relay.Backlog, now time.Time) {
	for _, m := range bs {
		if s.draining {
			return
		}
		if _, ok := s.lanes[m.Lane]; !ok && m.Due.Sub(now) > s.horizon {
			continue
		}
		s.mark(s.sub(m.Lane, m.Account, now), m.Due, now)
	}
}

// settle brings a sub to where its next due time says: among the hungry, to
// be woken, or out of memory. What is not due soon is the store's to remember.
func (s *scheduler) settle(b *sub, now time.Time) {
	if b.claiming {
		return
	}
	if b.next.Sub(now) > s.horizon {
		b.next = time.Time{}
	}
	switch {
	case b.due(now):
		s.alarms.off(&b.wake)
		if b.place == nowhere {
			s.stall(b)
		}
		s.place(b.lane, now)
	case !b.next.IsZero():
		if b.wake.fire == nil {
			b.wake.fire = func(now time.Time) { s.settle(b, now) }
		}
		s.alarms.set(&b.wake, b.next)
	default:
		s.alarms.off(&b.wake)
		if b.idle() {
			s.drop(b)
		}
	}
}

// drain begins the end: what was claimed and not begun is given back.
func (s *scheduler) drain() {
	s.draining = true
	var back []*job
	for _, l := range s.lanes {
		back = append(back, s.unhold(l)...)
	}
	s.giveBack(back)
}

// giveBack makes deliveries due again that were claimed and not begun.
func (s *scheduler) giveBack(back []*job) {
	if len(back) == 0 {
		return
	}
	s.releasing++
	s.q.pool.Go(func() {
		var marks []relay.Backlog
		for _, j := range back {
			d := j.held()
			due := s.q.release(relay.Claimed{Message: j.message, Delivery: d})
			s.q.inHand.remove(d.Key)
			marks = append(marks, relay.Backlog{Lane: d.Lane, Account: d.Account, Due: due})
		}
		select {
		case s.calls <- func(now time.Time) { s.releasing--; s.markAll(marks, now) }:
		case <-s.gone:
		}
	})
}

// hold takes a claimed delivery into memory.
func (s *scheduler) hold(b *sub, c relay.Claimed, now time.Time) {
	j := &job{sub: b, message: c.Message, delivery: c.Delivery}
	if b.waiting.len() == 0 {
		b.lane.ready.push(b)
	}
	b.waiting.push(j)
	s.take(b, 0, 1)
	s.place(b.lane, now)
}
