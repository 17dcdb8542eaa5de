// From a 250 to the block event, 3 of 10: this file makes one attempt to deliver,
// from the claim to the commit. Next: relay/deliver/attempt.go.

package attempt

import (
	"context"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/bounce"
	"tlsrelay/relay/deliver"
)

const (
	// timeLimit is how long an attempt may take. It needs a limit of its own, because
	// RFC 5321 §4.5.3.2 bounds each step of an attempt, but not the number of steps.
	timeLimit = time.Hour
	// patience is how long an attempt waits for a connection to a host that already has
	// as many as it may have. Then the attempt gives its slot to another.
	patience = time.Second
)

// Options are the settings of a [Maker].
type Options struct {
	Hostname string // names this relay in reports
	Schedule relay.Schedule

	// The mass-violation guard (policy.Guard) acts when GuardDomains domains fail
	// within GuardWithin. 0 domains turn it off.
	GuardDomains int
	GuardWithin  time.Duration
}

// Deliverer makes one attempt at the hosts of a destination. relay/deliver
// implements it.
type Deliverer interface {
	Deliver(ctx context.Context, job deliver.Job) relay.Result
}

// Deps are what a [Maker] works with.
type Deps struct {
	Store     relay.Store
	Deliverer Deliverer
	Senders   Senders
	// Tell is called with every event after its commit, from many goroutines at
	// once. It must neither block nor change the event.
	Tell func(*events.Event)
	Log  *zap.Logger
}

// Maker makes attempts and commits what comes of them. Its methods are safe for
// concurrent use.
type Maker struct {
	Deps
	Guard   *Guard
	o       Options
	metrics *metrics

	opening context.Context // its end cuts off attempts that have not come to MAIL
	attempt context.Context // its end cuts off all attempts
	commit  context.Context // its end gives up commits that keep failing
	// changed is demandsChanged. It is made once, because each use of a method as a
	// value allocates.
	changed func(*deliver.Job) bool
}

// NewMaker makes a maker whose work nothing ends; Until gives one with ends. reg may be
// nil.
func NewMaker(o Options, d Deps, reg prometheus.Registerer) *Maker {
	m := &Maker{Deps: d, o: o, Guard: newGuard(o, d.Log)}
	m.metrics = newMetrics(reg, m.Guard.Active)
	forever := context.Background()
	return m.Until(forever, forever, forever)
}

// Until gives a maker like m whose work ends with these contexts: opening cuts off
// the attempts that have not come to MAIL, attempt all attempts, and commit the
// commits that keep failing.
func (m *Maker) Until(opening, attempt, commit context.Context) *Maker {
	bound := *m
	bound.opening, bound.attempt, bound.commit = opening, attempt, commit
	bound.changed = bound.demandsChanged
	return &bound
}

// Outcome is what the loop of relay/queue learns from an attempt: what decides what is
// tried when. It is not a [relay.Outcome], which is about one recipient.
type Outcome struct {
	Feedback relay.Feedback
	// Failure is a temporary failure, if there was one. It shows operators what is wrong
	// with the destination.
	Failure *relay.Failure
	Due     time.Time            // of the next attempt; zero: there is none
	Hosts   []relay.HostEvidence // of the hosts that were tried
	Crowded string               // the host or address that had no connection free
	// Elsewhere is what became due in other queues: the report's delivery.
	Elsewhere []relay.Backlog
}

// Worker makes one attempt after another. It is for one goroutine.
type Worker struct {
	m *Maker
	// ctx is the context of an attempt. The next attempt uses it again, unless it was
	// cancelled.
	ctx    context.Context
	cancel context.CancelFunc
}

// NewWorker makes a worker; [Worker.Close] ends it.
func (m *Maker) NewWorker() *Worker { return &Worker{m: m} }

// Close gives up what the worker has.
func (w *Worker) Close() {
	if w.cancel != nil {
		w.cancel()
	}
}

// Attempt makes one attempt at a delivery. j.Began has to be set.
//
//	deliver        tries the hosts; the result has the ruling (relay/deliver/result.go)
//	guarded        makes a deferral of a block while the mass-violation guard is active
//	stepAndCommit  asks relay.Delivery.Step what the result means, has the store commit
//	               that, and tells the log and the metrics (commit.go)
func (w *Worker) Attempt(j *Job) (out Outcome) {
	m := w.m
	defer func() {
		if p := recover(); p != nil {
			// deliver catches a panic of the deliverer. After this one nobody knows
			// whether the outcome is committed. The delivery stays claimed until its
			// lease ends, so that the panic does not repeat itself at once.
			m.panicked(j.Delivery.Key, p)
			out.Due = j.end().Due
		}
	}()
	r := m.deliver(w.lease(j), j.Message, j.Delivery)
	d := j.end()
	claimed := relay.Claimed{Message: j.Message, Delivery: d}
	if notMade(r) {
		return Outcome{Due: m.postpone(claimed)}
	}
	r = m.guarded(d, r)
	out = Outcome{Hosts: r.Attempt.Hosts, Crowded: r.Crowded}
	again := m.cutShort(j.Message, d, r)
	if again && !informative(r) {
		out.Due = m.Release(claimed)
		return out
	}
	t, ok := m.stepAndCommit(j.Message, d, r, again)
	out.Feedback, out.Failure = r.Feedback, temporaryFailure(r)
	if ok {
		out.Elsewhere = reportBacklogs(t)
	}
	if !t.Done {
		// Without the commit this is void: somebody else has the delivery, or the
		// process ends.
		out.Due = t.After.Due
	}
	m.metrics.attempted(r.Feedback)
	return out
}

// cutShort reports whether an attempt ended before its time, for no fault of the
// destination, so that the next one is due at once.
func (m *Maker) cutShort(msg relay.Message, d relay.Delivery, r relay.Result) bool {
	if r.Crowded != "" && time.Since(lastTried(msg, d)) > m.o.Schedule.RetryMax {
		// Now and then it counts as an attempt. Otherwise the delivery would never
		// expire, and its sender would not hear of the delay.
		return false
	}
	return m.attempt.Err() != nil || r.Changed || r.Crowded != "" || r.Cut && m.opening.Err() != nil
}

// lastTried is when the last attempt at a delivery was made; when there was none,
// when the message was accepted.
func lastTried(msg relay.Message, d relay.Delivery) time.Time {
	if d.Last != nil {
		return d.Last.At
	}
	return msg.Accepted
}

// deliver makes the attempt. A fault of our own is a temporary failure that says
// nothing about the destination.
func (m *Maker) deliver(ctx context.Context, msg relay.Message, d relay.Delivery) (r relay.Result) {
	defer func() {
		if p := recover(); p != nil {
			m.panicked(d.Key, p)
			r = ownFault(d)
		}
	}()
	sender, demanding, err := m.demands(ctx, msg, &d)
	if err != nil {
		return m.senderUnknown(d, err)
	}
	defer func() { r.Demanding = demanding }()
	body, err := m.Store.Body(ctx, msg.ID)
	if err != nil {
		m.Log.Error("cannot open the body", zap.Stringer("delivery", d.Key), zap.Error(err))
		return ownFault(d)
	}
	defer func() { body.Close() }()
	if m.mustStrip(ctx, msg, d.Lane.Destination) {
		if body, err = bounce.WithoutContent(body); err != nil {
			m.Log.Error("cannot take the content out of a report", zap.Stringer("delivery", d.Key), zap.Error(err))
			return ownFault(d)
		}
		msg.HeadersOnly = true
	}
	r = m.Deliverer.Deliver(ctx, deliver.Job{
		Message: msg, Delivery: d, Sender: sender, Body: body,
		Opening: m.opening, Patience: patience, Changed: m.changed,
	})
	if len(r.Outcomes) != len(d.Waiting()) {
		m.Log.Error("an attempt lost recipients", zap.Stringer("delivery", d.Key), zap.Int("outcomes", len(r.Outcomes)))
		return ownFault(d)
	}
	return r
}

func (m *Maker) panicked(key relay.DeliveryKey, p any) {
	m.metrics.panics.Inc()
	m.Log.Error("an attempt panicked", zap.Stringer("delivery", key), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
}

// ownFault is the result of a fault of this relay. It counts as demanding, because the
// demands may not be known: the report must not return the body of a message that may
// have demanded TLS.
func ownFault(d relay.Delivery) relay.Result {
	r := relay.FailAll(d, relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachMessage, Reason: events.Internal, Status: "4.3.0",
		Reply: relay.Reply{Text: "temporary fault of the relay"},
	}, time.Now())
	r.Demanding = true
	return r
}

// informative reports whether an attempt learned anything that must not be lost: that a
// recipient is done with, or what a host replied.
func informative(r relay.Result) bool {
	return slices.ContainsFunc(r.Outcomes, func(o relay.Outcome) bool {
		return o.Failure == nil || o.Failure.Class == relay.Permanent || o.Failure.Reply.Code != 0
	})
}

// temporaryFailure finds a temporary failure of r, if there is one. It prefers one of the
// whole destination.
func temporaryFailure(r relay.Result) *relay.Failure {
	var found *relay.Failure
	for _, o := range r.Outcomes {
		if f := o.Failure; f != nil && f.Class == relay.Temporary && (found == nil || f.Reach == relay.ReachDestination) {
			found = f
		}
	}
	return found
}
