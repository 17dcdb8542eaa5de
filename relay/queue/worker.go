package queue

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/bounce"
	"tlsrelay/relay/deliver"
)

const (
	// attemptLimit is when an attempt is cut off that still goes on: RFC 5321
	// §4.5.3.2 bounds each step of it, but not how many there are.
	attemptLimit = time.Hour
	// The pauses between tries of a commit that fails.
	commitPause    = 100 * time.Millisecond
	commitPauseMax = 10 * time.Second
)

// crew is what works beside the loop while Run is on.
type crew struct {
	*Queue
	openings context.Context         // ends when attempts that have not come to MAIL are cut off
	attempts context.Context         // ends when all attempts are
	commits  context.Context         // ends when commits are, too
	changed  func(*deliver.Job) bool // demandsChanged, which as a value is made but once
	pool     sync.WaitGroup
	inHand   inHand
}

// finished is what the loop learns of an attempt.
type finished struct {
	job      *job
	feedback relay.Feedback
	failure  *relay.Failure       // a temporary one, for who asks how the lane is
	due      time.Time            // of the next attempt; zero: there is none
	hosts    []relay.HostEvidence // that it was at
	crowded  string               // the place that it found no connection to
	// elsewhere is what became due in other lanes: the report's delivery.
	elsewhere []relay.Backlog
}

func (c *crew) worker(work <-chan *job, done chan<- finished) {
	var t tether
	for j := range work {
		done <- c.attempt(j, &t)
	}
	if t.cancel != nil {
		t.cancel()
	}
}

// attempt is one turn: deliver, step, commit.
func (c *crew) attempt(j *job, t *tether) (f finished) {
	f.job = j
	defer func() {
		if p := recover(); p != nil {
			// Not in the delivery itself, which has its own net: the lease
			// paces what happens again.
			c.panicked(j.delivery.Key, p)
			f.due = j.end().Due
		}
	}()
	r := c.deliver(c.lease(j, t), j.message, j.delivery)
	d := j.end()
	if withheld(r) {
		f.due = c.withhold(relay.Claimed{Message: j.message, Delivery: d})
		return f
	}
	r = c.guarded(d, r)
	f.hosts = r.Attempt.Hosts
	cut := c.attempts.Err() != nil || r.Changed || r.Crowded != "" || r.Cut && c.openings.Err() != nil
	if r.Crowded != "" && time.Since(lastTried(j.message, d)) > c.o.Schedule.RetryMax {
		cut = false // it has to come to its end some time, and its sender has to hear of the delay
	}
	f.crowded = r.Crowded
	if cut && !heard(r) {
		f.due = c.release(relay.Claimed{Message: j.message, Delivery: d})
		return f
	}
	step, ok := c.conclude(j.message, d, r, cut)
	f.feedback, f.failure = r.Feedback, lasting(r)
	if ok {
		f.elsewhere = reported(step)
	}
	if !step.Done {
		f.due = step.After.Due // if not by us, then by whoever has it now
	}
	c.metrics.attempted(r.Feedback)
	return f
}

// lastTried is when the last attempt at a delivery was made, or since when one is
// waited for.
func lastTried(m relay.Message, d relay.Delivery) time.Time {
	if d.Last != nil {
		return d.Last.At
	}
	return m.Accepted
}

// deliver makes the attempt. Whatever is our own fault is a temporary failure
// that says nothing about the destination.
func (c *crew) deliver(ctx context.Context, m relay.Message, d relay.Delivery) (r relay.Result) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(d.Key, p)
			r = internal(d)
		}
	}()
	sender, demanding, err := c.demands(ctx, m, &d)
	if err != nil {
		return c.unsent(d, err)
	}
	defer func() { r.Demanding = demanding }()
	body, err := c.store.Body(ctx, m.ID)
	if err != nil {
		c.log.Error("cannot open the body", zap.Stringer("delivery", d.Key), zap.Error(err))
		return internal(d)
	}
	defer func() { body.Close() }()
	if m.Report && !m.HeadersOnly && c.demanded(ctx, m, d.Lane.Destination) {
		if body, err = bounce.WithoutContent(body); err != nil {
			c.log.Error("cannot take the content out of a report", zap.Stringer("delivery", d.Key), zap.Error(err))
			return internal(d)
		}
		m.HeadersOnly = true
	}
	r = c.deliverer.Deliver(ctx, deliver.Job{Message: m, Delivery: d, Sender: sender, Body: body, Opening: c.openings, Patience: patience, Changed: c.changed})
	if len(r.Outcomes) != len(d.Waiting()) {
		c.log.Error("an attempt lost recipients", zap.Stringer("delivery", d.Key), zap.Int("outcomes", len(r.Outcomes)))
		return internal(d)
	}
	return r
}

func (c *crew) panicked(key relay.DeliveryKey, p any) {
	c.metrics.panics.Inc()
	c.log.Error("an attempt panicked", zap.Stringer("delivery", key), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
}

// sender gives the demands on the sender's side. A report of our own has
// none: it must arrive. But a disabled account sends nothing at all, for its reports
// go to whoever it, or a thief of its key, gave as the sender.
func (q *Queue) sender(ctx context.Context, m relay.Message, destination string) (policy.Sender, error) {
	if m.Report {
		m.Report = false
		_, err := q.senders.Sender(ctx, m, destination)
		if !errors.Is(err, account.ErrDisabled) {
			err = nil
		}
		return policy.Sender{}, err
	}
	return q.senders.Sender(ctx, m, destination)
}

// demanded reports whether the account of a report demands anything of its
// messages by now, or cannot be asked: what the report returns of one then leaves
// without its content.
func (q *Queue) demanded(ctx context.Context, report relay.Message, destination string) bool {
	report.Report = false
	s, err := q.senders.Sender(ctx, report, destination)
	return err != nil || !s.Demands().Opportunistic()
}

// demands gives the sender of a delivery of m, and whether anything is demanded of
// it. It leaves of its history what still counts under that.
func (q *Queue) demands(ctx context.Context, m relay.Message, d *relay.Delivery) (s policy.Sender, demanding bool, err error) {
	if s, err = q.sender(ctx, m, d.Lane.Destination); err != nil {
		return s, false, err
	}
	demands := m.Demands(s)
	d.History = d.History.Under(demands)
	return s, !demands.Opportunistic(), nil
}

// demandsChanged reports whether the sender of a job demands other things by now,
// or cannot be asked.
func (c *crew) demandsChanged(j *deliver.Job) bool {
	if j.Message.Report && !j.Message.HeadersOnly && c.demanded(c.attempts, j.Message, j.Delivery.Lane.Destination) {
		return true
	}
	sender, err := c.sender(c.attempts, j.Message, j.Delivery.Lane.Destination)
	return err != nil || !j.Message.Demands(sender).Equal(j.Message.Demands(j.Sender))
}

// unsent is the result of an attempt without the sender's demands. Mail of an
// account that was deleted has nobody left to demand anything, so it ends; its
// report goes without the body, for what was demanded is not known. A disabled
// account's mail waits until it is enabled again, or its lifetime ends.
func (c *crew) unsent(d relay.Delivery, err error) relay.Result {
	if errors.Is(err, account.ErrDisabled) {
		return c.unsentFor(d)
	}
	if !errors.Is(err, account.ErrNotFound) {
		c.log.Error("cannot load the sender's demands", zap.Stringer("delivery", d.Key), zap.Error(err))
		return internal(d)
	}
	r := relay.FailAll(d, relay.Failure{
		Class: relay.Permanent, Reach: relay.ReachDestination, Reason: events.AccountGone, Status: "5.7.1",
		Reply: relay.Reply{Text: "the sending account no longer exists"},
	}, time.Now())
	r.Demanding = true
	return r
}

// unsentFor is the result of an attempt that a disabled account does not make:
// nothing (withheld), before the end of the lifetime.
func (c *crew) unsentFor(d relay.Delivery) relay.Result {
	now := time.Now()
	if now.Before(c.ends(d)) {
		return relay.Result{}
	}
	r := relay.FailAll(d, relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachMessage, Reason: events.Expired, Status: "4.7.1",
		Reply: relay.Reply{Text: "the sending account is disabled"},
	}, now)
	r.Demanding = true
	return r
}

// withheld reports whether r is of an attempt that was not to be made.
func withheld(r relay.Result) bool { return len(r.Outcomes) == 0 }

// ends is the end of the lifetime of a delivery.
func (c *crew) ends(d relay.Delivery) time.Time {
	return d.Key.Message.Time().Add(c.o.Schedule.Lifetime)
}

// withhold has a delivery wait that was claimed and not tried, and says until when.
// Whoever enables the account makes it due: until then, a queue of any length is
// looked at now and then, and not over and over.
func (c *crew) withhold(x relay.Claimed) time.Time {
	due := time.Now().Add(c.o.Schedule.RetryMax)
	if end := c.ends(x.Delivery); end.Before(due) {
		due = end
	}
	return c.giveUp(x, due)
}

// internal is the result of a fault of our own. What was demanded may not be
// known, so something was.
func internal(d relay.Delivery) relay.Result {
	r := relay.FailAll(d, relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachMessage, Reason: events.Internal, Status: "4.3.0",
		Reply: relay.Reply{Text: "temporary fault of the relay"},
	}, time.Now())
	r.Demanding = true
	return r
}

// heard reports whether the attempt brought anything that must not be lost: an
// end, or what a host had to say.
func heard(r relay.Result) bool {
	return slices.ContainsFunc(r.Outcomes, func(o relay.Outcome) bool {
		return o.Failure == nil || o.Failure.Class == relay.Permanent || o.Failure.Reply.Code != 0
	})
}

// lasting finds a temporary failure of r, the widest first.
func lasting(r relay.Result) *relay.Failure {
	var found *relay.Failure
	for _, o := range r.Outcomes {
		if f := o.Failure; f != nil && f.Class == relay.Temporary && (found == nil || f.Reach == relay.ReachDestination) {
			found = f
		}
	}
	return found
}

// conclude steps a delivery by the result of an attempt and commits that.
// soon makes a next attempt due at once. ok is false when the commit did not
// happen.
func (c *crew) conclude(m relay.Message, d relay.Delivery, r relay.Result, soon bool) (t relay.Transition, ok bool) {
	now := time.Now()
	t = d.Step(m, r, now, c.o.Schedule)
	if soon && !t.Done {
		t.After.Due = now
	}
	return t, c.settle(&t) == nil
}

// settle commits a transition, its report written, and tells its events.
func (c *crew) settle(t *relay.Transition) error {
	if t.Notice != nil {
		t.Report = c.report(*t)
	}
	if err := c.commit(t); err != nil {
		return err
	}
	for i := range t.Events {
		c.tell(&t.Events[i])
	}
	if t.Report != nil {
		c.tellReport(t.Report)
	}
	return nil
}

// tellReport tells that a report is on its way, as of any message: to the log and
// the metrics, for nobody's webhook hears of reports.
func (c *crew) tellReport(r *relay.Report) {
	for _, d := range r.Deliveries {
		evs := r.Message.Processed(d.Recipients)
		for i := range evs {
			c.tell(&evs[i])
		}
	}
}

// report writes the DSN of a transition. It is written without the original
// when that cannot be had, rather than not at all.
func (c *crew) report(t relay.Transition) *relay.Report {
	body, err := c.store.Body(c.commits, t.Message.ID)
	if err != nil {
		c.log.Error("cannot return the original", zap.Stringer("delivery", t.Before.Key), zap.Error(err))
		body = nil
	} else {
		defer body.Close()
	}
	r := bounce.Write(t.Message, *t.Notice, body, bounce.Options{Hostname: c.o.Hostname, Now: time.Now()})
	return &r
}

// reported gives the lanes where a transition's report waits.
func reported(t relay.Transition) []relay.Backlog {
	if t.Report == nil {
		return nil
	}
	var marks []relay.Backlog
	for _, d := range t.Report.Deliveries {
		marks = append(marks, relay.Backlog{Lane: d.Lane, Account: d.Account, Due: d.Due})
	}
	return marks
}

// commit makes a transition happen, however often it has to try: after the
// final dot, a commit that is lost is a message delivered twice. It gives up
// only when another hand has the delivery now, or the process ends. Meanwhile
// it holds its slot, on purpose: a store that takes no outcomes must not be
// given more of them. What keeps failing shows in the gauge of uncommitted
// outcomes and, every few seconds, in the log. All that a stranger adds to an
// outcome is the evidence, so that nothing else can be unrecordable for good.
func (c *crew) commit(t *relay.Transition) error {
	failing := false
	defer func() {
		if failing {
			c.metrics.uncommitted.Dec()
		}
	}()
	for pause := commitPause; ; pause = min(2*pause, commitPauseMax) {
		err := c.store.Commit(c.commits, *t)
		if err == nil {
			return nil
		}
		if !failing {
			failing = true
			c.metrics.uncommitted.Inc()
		}
		c.metrics.commitFailures.Inc()
		fields := []zap.Field{
			zap.Stringer("delivery", t.Before.Key), zap.Error(err),
			zap.Bool("delivered", slices.ContainsFunc(t.Events, func(e events.Event) bool { return e.Kind == events.Delivered })),
		}
		switch {
		case errors.Is(err, relay.ErrUnrecordable) && t.After.Last != nil && len(t.After.Last.Hosts) > 0:
			// What a host showed must not cost the outcome.
			c.log.Error("the evidence of an attempt cannot be recorded; the outcome goes without it", fields...)
			bare := *t.After.Last
			bare.Hosts = nil
			t.After.Last = &bare
			continue
		case errors.Is(err, relay.ErrStale), errors.Is(err, relay.ErrNotFound):
			c.log.Warn("the delivery was taken over meanwhile; the outcome of this attempt is dropped", fields...)
			return err
		default:
			c.log.Error("cannot commit; the outcome is kept and tried again", fields...)
		}
		select {
		case <-time.After(pause):
		case <-c.commits.Done():
			c.log.Error("stopping with an outcome that was never committed; it will be attempted again", fields...)
			return err
		}
	}
}

// release makes a delivery that was claimed and not tried due again, and says
// when: now, or at the end of its lease when that fails.
func (c *crew) release(x relay.Claimed) time.Time { return c.giveUp(x, time.Now()) }

// giveUp ends the claim on a delivery that was not tried, which is due at a time, and
// says when it is.
func (c *crew) giveUp(x relay.Claimed, due time.Time) time.Time {
	after := x.Delivery
	after.Due = due
	after.Attempts--
	if err := c.store.Commit(c.commits, relay.Transition{Message: x.Message, Before: x.Delivery, After: after}); err != nil {
		c.log.Warn("cannot give back a claim; its lease will end by itself", zap.Stringer("delivery", x.Delivery.Key), zap.Error(err))
		return x.Delivery.Due
	}
	return after.Due
}
