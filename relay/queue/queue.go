package queue

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// When Run is to end, attempts that are still on their way to a host, which
// may be a tarpit, have openGrace to come to MAIL; the others have
// Options.Drain. Then commits may go on for commitGrace.
const (
	openGrace   = 2 * time.Second
	commitGrace = 10 * time.Second
)

// Queue decides when what is tried, and sees each attempt to its commit. Its
// methods are safe for concurrent use.
type Queue struct {
	o         Options
	store     relay.Store
	deliverer Deliverer
	senders   Senders
	tell      func(*events.Event)
	log       *zap.Logger
	metrics   *metrics

	loop atomic.Pointer[scheduler] // nil while Run is not on

	guardMu sync.Mutex
	guard   *policy.Guard
	held    bool // what the guard last said
}

// New makes a queue. Nothing runs until [Queue.Run]; until then Accept only
// stores. tell is called with every event after its commit, from many
// goroutines at once, and must neither block nor change it; reg may be nil.
func New(o Options, store relay.Store, d Deliverer, s Senders, tell func(*events.Event), log *zap.Logger, reg prometheus.Registerer) *Queue {
	o = o.withDefaults()
	q := &Queue{
		o: o, store: store, deliverer: d, senders: s, tell: tell, log: log,
		guard: policy.NewGuard(o.GuardDomains, o.GuardWithin),
	}
	q.metrics = newMetrics(reg, q.GuardHolds)
	return q
}

// Run owns the lanes until ctx ends. Then it begins nothing new, lets running
// attempts and their commits finish, as long as it has patience with them, and
// gives back what was claimed and not begun. It returns when everything that it
// started has ended.
func (q *Queue) Run(ctx context.Context) error {
	openings, cutOpenings := context.WithCancel(context.WithoutCancel(ctx))
	defer cutOpenings()
	attempts, cutAttempts := context.WithCancel(context.WithoutCancel(ctx))
	defer cutAttempts()
	commits, cutCommits := context.WithCancel(context.WithoutCancel(ctx))
	defer cutCommits()
	c := &crew{Queue: q, openings: openings, attempts: attempts, commits: commits}
	c.changed = c.demandsChanged
	s := newScheduler(c)
	q.loop.Store(s) // before the first scan: see hand
	c.pool.Go(func() { c.scan(ctx, s) })
	c.pool.Go(func() { s.bound(ctx, cutOpenings, cutAttempts, cutCommits) })
	s.loop(ctx)
	q.loop.Store(nil)
	close(s.gone)
	close(s.work)
	c.pool.Wait()
	return nil
}

// bound cuts off what goes on for too long after ctx ended.
func (s *scheduler) bound(ctx context.Context, cutOpenings, cutAttempts, cutCommits func()) {
	select {
	case <-ctx.Done():
	case <-s.gone:
		return
	}
	grace := min(openGrace, s.q.o.Drain)
	for _, step := range []struct {
		after time.Duration
		cut   func()
	}{{grace, cutOpenings}, {s.q.o.Drain - grace, cutAttempts}, {commitGrace, cutCommits}} {
		select {
		case <-time.After(step.after):
			step.cut()
		case <-s.gone:
			return
		}
	}
}

// NewDraft begins a body.
func (q *Queue) NewDraft() relay.Draft { return q.store.NewDraft() }

// scan asks the store what is queued: at the start, every Options.Rescan, and
// when somebody calls for it. Delivery begins with the first lane found.
func (c *crew) scan(ctx context.Context, s *scheduler) {
	for {
		begun := time.Now()
		if err := c.scanOnce(ctx, s); err != nil && ctx.Err() == nil {
			c.log.Error("cannot read the backlogs", zap.Error(err))
		}
		// A long list is read less often.
		took := time.Since(begun)
		pause := max(c.o.Rescan, scanShare*took)
		c.forget(ctx, s, 2*(pause+took))
		next := time.NewTimer(pause)
		select {
		case <-next.C:
		case <-s.rescan:
			next.Stop()
		case <-ctx.Done():
			next.Stop()
			return
		}
	}
}

// scanShare is the part of the time, one in so many, that is spent on scans at
// most.
const scanShare = 10

// forget has the loop keep in memory what is due within a time, for by then it
// will have been found by another scan.
func (c *crew) forget(ctx context.Context, s *scheduler, horizon time.Duration) {
	select {
	case s.calls <- func(now time.Time) { s.horizon = horizon; s.forget(now) }:
	case <-ctx.Done():
	}
}

func (c *crew) scanOnce(ctx context.Context, s *scheduler) error {
	const batch = 256
	var marks []relay.Backlog
	flush := func() bool {
		select {
		case s.marks <- marks:
			marks = nil
			return true
		case <-ctx.Done():
			return false
		}
	}
	err := c.store.Backlogs(ctx, func(b relay.Backlog) bool {
		marks = append(marks, b)
		return len(marks) < batch || flush()
	})
	if len(marks) > 0 {
		flush()
	}
	return err
}

// call runs f on the loop and waits for it; false when there is no loop.
func (q *Queue) call(f func(s *scheduler, now time.Time)) bool {
	s := q.loop.Load()
	if s == nil {
		return false
	}
	done := make(chan struct{})
	select {
	case s.calls <- func(now time.Time) { f(s, now); close(done) }:
		<-done
		return true
	case <-s.gone:
		return false
	}
}
