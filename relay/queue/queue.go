package queue

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/queue/attempt"
)

// When Run is to end, attempts that have not come to MAIL, perhaps because the
// host is a tarpit, have openGrace to come there; the others have Options.Drain.
// Then commits may go on for commitGrace.
const (
	openGrace   = 2 * time.Second
	commitGrace = 10 * time.Second
)

// Queue decides when what is tried, and sees each attempt to its commit. Its
// methods are safe for concurrent use.
type Queue struct {
	o       Options
	store   relay.Store
	maker   *attempt.Maker
	tell    func(*events.Event)
	log     *zap.Logger
	metrics *metrics

	loop atomic.Pointer[scheduler] // nil while Run is not on
}

// New makes a queue. Nothing runs until [Queue.Run]; until then Accept only
// stores. tell is called with every event after its commit, from many
// goroutines at once, and must neither block nor change it; reg may be nil.
func New(o Options, store relay.Store, d attempt.Deliverer, s attempt.Senders, tell func(*events.Event), log *zap.Logger, reg prometheus.Registerer) *Queue {
	o = o.withDefaults()
	maker := attempt.NewMaker(attempt.Options{
		Hostname: o.Hostname, Schedule: o.Schedule, GuardDomains: o.GuardDomains, GuardWithin: o.GuardWithin,
	}, attempt.Deps{Store: store, Deliverer: d, Senders: s, Tell: tell, Log: log}, reg)
	return &Queue{o: o, store: store, maker: maker, tell: tell, log: log, metrics: newMetrics(reg)}
}

// Run owns the queues until ctx ends. Then it begins nothing new, lets running
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
	s := newScheduler(q, q.maker.Until(openings, attempts, commits), commits)
	q.loop.Store(s) // before the first scan: see handOver
	s.beside.Go(func() { s.scan(ctx) })
	s.beside.Go(func() { s.cutOff(ctx, cutOpenings, cutAttempts, cutCommits) })
	s.loop(ctx)
	q.loop.Store(nil)
	close(s.gone)
	close(s.work)
	s.beside.Wait()
	return nil
}

// cutOff cuts off what goes on for too long after ctx ended.
func (s *scheduler) cutOff(ctx context.Context, cutOpenings, cutAttempts, cutCommits func()) {
	select {
	case <-ctx.Done():
	case <-s.gone:
		return
	}
	grace := min(openGrace, s.o.Drain)
	for _, step := range []struct {
		after time.Duration
		cut   func()
	}{{grace, cutOpenings}, {s.o.Drain - grace, cutAttempts}, {commitGrace, cutCommits}} {
		select {
		case <-time.After(step.after):
			step.cut()
		case <-s.gone:
			return
		}
	}
}

// NewDraft begins a body of an account's message.
func (q *Queue) NewDraft(who account.ID) relay.Draft { return q.store.NewDraft(who) }

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
