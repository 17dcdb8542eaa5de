package queue

import (
	"container/list"
	"context"
	"sync"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/queue/attempt"
	"tlsrelay/relay/queue/fair"
)

// scheduler is the loop: the one goroutine that owns the queues. Others reach it by
// its channels. What runs beside it are the scan, workers, claims and whatever else
// may block; all of that touches nothing below the line.
type scheduler struct {
	q       *Queue
	o       Options
	limits  fair.Limits
	maker   *attempt.Maker
	commits context.Context // its end gives up what the store does not take
	beside  sync.WaitGroup
	inHand  inHand

	asks     chan *acceptance // unbuffered: an ask that was heard gets an answer
	accepted chan *acceptance // unbuffered: what was heard is taken care of
	backlogs chan []relay.Backlog
	calls    chan func(now time.Time)
	rescan   chan struct{}
	gone     chan struct{} // closed when the loop ends

	work   chan *job
	done   chan attempted
	claims chan claimed

	// The line. Only the loop touches what follows.

	queues     map[relay.Lane]*destQueue
	sweepAt    int // destination queues at which those with nothing to do go
	tenants    map[account.ID]*tenant
	crowded    map[string]*crowdedHost
	starts     fair.RankedFIFO[*destQueue] // that may begin an attempt
	claimTurns fair.RankedTurns[*tenant, *accountQueue]
	forQuota   fair.FIFO[*tenant]       // that have account queues waiting for their quota
	waiting    [waitsForKinds]int       // account queues with something due, by what they wait for
	overdue    fair.FIFO[*accountQueue] // at dead destinations
	alarms     alarms
	quick      list.List // of *job under way, the longest first; slow ones leave
	slowWake   alarm     // when the first of quick counts as slow
	running    fair.Slots
	claimed    fair.Slots // deliveries in memory, not begun
	workers    int        // goroutines, at work or idle
	claiming   int        // claims under way
	releasing  int        // batches that are being given back
	suspending bool       // one batch at a time
	draining   bool
	// horizon is how soon what waits in the store has to be due to be kept in
	// memory. Another scan finds the rest before it is due.
	horizon time.Duration
}

func newScheduler(q *Queue, maker *attempt.Maker, commits context.Context) *scheduler {
	n := q.o.MaxConnections
	s := &scheduler{
		q: q, o: q.o, maker: maker, commits: commits,
		limits: fair.Limits{
			Window:     q.o.MaxPerDestination,
			MinCoolOff: q.o.Schedule.RetryAfter / 10,
			MaxCoolOff: 2 * q.o.Schedule.RetryAfter,
		},
		asks: make(chan *acceptance), accepted: make(chan *acceptance),
		backlogs: make(chan []relay.Backlog), calls: make(chan func(time.Time)),
		rescan: make(chan struct{}, 1), gone: make(chan struct{}),
		work: make(chan *job, n), done: make(chan attempted, n),
		claims:  make(chan claimed, maxClaims+1),
		queues:  make(map[relay.Lane]*destQueue),
		tenants: make(map[account.ID]*tenant), crowded: make(map[string]*crowdedHost),
		sweepAt: minSweep, horizon: 2 * q.o.Rescan,
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
			s.promise(a, time.Now())
		case a := <-s.accepted:
			s.takeAccepted(a, time.Now())
		case a := <-s.done:
			s.endAttempt(a, time.Now())
		case c := <-s.claims:
			s.endClaim(c, time.Now())
		case all := <-s.backlogs:
			s.noteBacklogs(all, time.Now())
		case call := <-s.calls:
			call(time.Now())
		case <-timer.C:
			set = time.Time{}
			s.ring(time.Now())
		case <-stop:
			stop = nil
			s.drain()
		case <-s.commits.Done():
			return
		}
		s.dispatch(time.Now())
	}
}

// drained reports whether the loop may end.
func (s *scheduler) drained() bool {
	return s.draining && s.running.Total() == 0 && s.claimed.Total() == 0 && s.claiming == 0 && s.releasing == 0
}

// ring fires what is due.
func (s *scheduler) ring(now time.Time) {
	for a, ok := s.alarms.due(now); ok; a, ok = s.alarms.due(now) {
		a.fire(now)
	}
}

// schedule puts a destination queue where its turn will come: to begin an attempt,
// to claim, or to wake when its cool-off is over.
func (s *scheduler) schedule(dq *destQueue, now time.Time) {
	dq.touched = now
	if s.draining {
		return
	}
	if dq.window.CoolingOff(now) {
		if dq.ready.Len() > 0 || dq.waiting > 0 {
			s.alarms.set(&dq.wake, dq.window.CoolUntil())
		}
		return
	}
	if s.canStart(dq) {
		s.starts.Push(dq, dq.rank(), &dq.starts)
	}
	s.queueClaims(dq)
}

func (s *scheduler) canStart(dq *destQueue) bool {
	return dq.ready.Len() > 0 && dq.running < dq.window.Size(s.limits)
}

// dispatch gives away every slot and every claim that may be given now.
func (s *scheduler) dispatch(now time.Time) {
	if s.draining {
		return
	}
	n := s.o.MaxConnections
	for s.running.Total() < n {
		dq, ok := s.starts.Pop(
			func(r fair.Rank) bool { return s.running.FreeFor(r, n) },
			func(dq *destQueue, r fair.Rank) bool {
				dq.starts.Remove(r)
				return r == dq.rank() && s.canStart(dq) && !dq.window.CoolingOff(now)
			})
		if !ok {
			break
		}
		s.start(dq, now)
		s.schedule(dq, now)
	}
	for s.claiming < maxClaims {
		memory := s.inMemory()
		s.admitUnderQuota(memory)
		aq := s.nextClaim(memory, now)
		if aq == nil {
			break
		}
		s.claim(aq, memory, now)
		s.schedule(aq.dest, now)
	}
	s.suspendOverdue(now)
	s.q.metrics.observe(s)
}

// addReady takes a claimed delivery into memory.
func (s *scheduler) addReady(aq *accountQueue, c relay.Claimed, now time.Time) {
	j := &job{Job: attempt.Job{Message: c.Message, Delivery: c.Delivery}, queue: aq}
	if aq.ready.Len() == 0 {
		aq.dest.ready.Push(aq)
	}
	aq.ready.Push(j)
	s.count(aq, 0, 1)
	s.schedule(aq.dest, now)
}

// takeReady takes all claimed deliveries of a destination queue out of memory.
func (s *scheduler) takeReady(dq *destQueue) (back []*job) {
	for dq.ready.Len() > 0 {
		for aq := dq.ready.Pop(); aq.ready.Len() > 0; {
			back = append(back, aq.ready.Pop())
			s.count(aq, 0, -1)
		}
	}
	return back
}

// start begins an attempt for the account whose turn it is in the destination
// queue.
func (s *scheduler) start(dq *destQueue, now time.Time) {
	aq := dq.ready.Pop()
	j := aq.ready.Pop()
	if aq.ready.Len() > 0 {
		dq.ready.Push(aq)
	}
	s.count(aq, 0, -1)
	if !s.leaseLeft(j, now) {
		s.giveBack([]*job{j})
		return
	}
	s.count(aq, 1, 0)
	j.Began = now
	j.quick = s.quick.PushBack(j)
	if s.slowWake.index == 0 {
		s.alarms.set(&s.slowWake, now.Add(attempt.SlowAfter))
	}
	if s.running.Total() > s.workers {
		s.workers++
		s.beside.Go(s.worker)
	}
	s.work <- j // never blocks: as deep as there are slots
}

// leaseLeft reports whether enough of the lease is left to begin. What has waited
// for too long is given back, to be claimed again.
func (s *scheduler) leaseLeft(j *job, now time.Time) bool {
	return j.Delivery.Due.Sub(now) > s.o.Schedule.Delay(j.Delivery.Attempts)/4
}

// attempted is what came of a job.
type attempted struct {
	job *job
	attempt.Outcome
}

// worker makes attempts, beside the loop.
func (s *scheduler) worker() {
	w := s.maker.NewWorker()
	defer w.Close()
	for j := range s.work {
		s.done <- attempted{j, w.Attempt(&j.Job)}
	}
}

// markSlow marks destination queues as slow whose attempts take long, and has the
// leases of these kept.
func (s *scheduler) markSlow(now time.Time) {
	for e := s.quick.Front(); e != nil; e = s.quick.Front() {
		j := e.Value.(*job)
		if now.Sub(j.Began) < attempt.SlowAfter {
			s.alarms.set(&s.slowWake, j.Began.Add(attempt.SlowAfter))
			return
		}
		s.quick.Remove(e)
		j.quick, j.slow = nil, true
		s.beside.Go(func() { s.maker.KeepLease(&j.Job) }) // which may wait for the store
		dq := j.queue.dest
		dq.slow++
		s.updateStanding(dq)
		s.schedule(dq, now)
	}
}

// endAttempt takes back the slot of an attempt, and takes in what it taught.
func (s *scheduler) endAttempt(a attempted, now time.Time) {
	j, aq := a.job, a.job.queue
	dq := aq.dest
	s.inHand.remove(j.Delivery.Key)
	if j.quick != nil {
		s.quick.Remove(j.quick)
	}
	if j.slow {
		dq.slow--
	}
	s.count(aq, -1, 0)
	dq.window = dq.window.Learn(a.Feedback, j.Began, now, s.limits)
	if a.Failure != nil {
		dq.last = a.Failure
	}
	s.updateStanding(dq)
	if a.Crowded != "" {
		s.waitForConnection(dq, a.Crowded, now)
	} else {
		s.noteEndedAt(a.Hosts, now)
	}
	if !a.Due.IsZero() {
		s.noteDue(aq, a.Due, now)
	}
	s.noteBacklogs(a.Elsewhere, now)
	if dq.window.Dead() && a.Feedback == relay.Trouble {
		s.noteOverdue(dq, now)
	}
	s.schedule(dq, now)
}

// drain begins the end: what was claimed and not begun is given back.
func (s *scheduler) drain() {
	s.draining = true
	var back []*job
	for _, dq := range s.queues {
		back = append(back, s.takeReady(dq)...)
	}
	s.giveBack(back)
}

// giveBack makes deliveries due again that were claimed and not begun.
func (s *scheduler) giveBack(back []*job) {
	if len(back) == 0 {
		return
	}
	s.releasing++
	s.beside.Go(func() {
		var all []relay.Backlog
		for _, j := range back {
			d := j.Delivery
			due := s.maker.Release(relay.Claimed{Message: j.Message, Delivery: d})
			s.inHand.remove(d.Key)
			all = append(all, relay.Backlog{Lane: d.Lane, Account: d.Account, Due: due})
		}
		select {
		case s.calls <- func(now time.Time) { s.releasing--; s.noteBacklogs(all, now) }:
		case <-s.gone:
		}
	})
}
