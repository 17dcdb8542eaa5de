package attempt

import (
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/bounce"
)

// The pauses between tries of a commit that fails.
const (
	commitPause    = 100 * time.Millisecond
	commitPauseMax = 10 * time.Second
)

// stepAndCommit steps a delivery by the result of an attempt, commits that and
// tells its events. again makes a next attempt due at once. ok is false when the
// commit did not happen.
func (m *Maker) stepAndCommit(msg relay.Message, d relay.Delivery, r relay.Result, again bool) (t relay.Transition, ok bool) {
	now := time.Now()
	t = d.Step(msg, r, now, m.o.Schedule)
	if again && !t.Done {
		t.After.Due = now
	}
	return t, m.commitAndTell(&t) == nil
}

// Drop gives up a delivery that an operator has claimed (relay.Operator.Take),
// with its events and its report. words tell its sender why. It gives what became
// due in other queues; an error is that of the commit.
func (m *Maker) Drop(ctx context.Context, c relay.Claimed, words string) (elsewhere []relay.Backlog, err error) {
	m = m.Until(ctx, ctx, ctx)
	// A sender that cannot be asked may demand anything.
	sender, err := m.sender(ctx, c.Message, c.Delivery.Lane.Destination)
	demanding := err != nil || !c.Message.Demands(sender).Opportunistic()
	t := c.Delivery.Drop(c.Message, time.Now(), words, demanding)
	if err := m.commitAndTell(&t); err != nil {
		return nil, err
	}
	return reportBacklogs(t), nil
}

// commitAndTell writes the report of a transition, commits it and tells its
// events.
func (m *Maker) commitAndTell(t *relay.Transition) error {
	if t.Notice != nil {
		t.Report = m.report(*t)
	}
	if err := m.commitUntilDone(t); err != nil {
		return err
	}
	for i := range t.Events {
		m.Tell(&t.Events[i])
	}
	if t.Report != nil {
		m.tellReport(t.Report)
	}
	return nil
}

// tellReport tells that a report is on its way, as of any message: to the log and
// the metrics, for nobody's webhook hears of reports.
func (m *Maker) tellReport(r *relay.Report) {
	for _, d := range r.Deliveries {
		evs := r.Message.Processed(d.Recipients)
		for i := range evs {
			m.Tell(&evs[i])
		}
	}
}

// report writes the DSN of a transition: without the original when that cannot be
// had, rather than not at all.
func (m *Maker) report(t relay.Transition) *relay.Report {
	body, err := m.Store.Body(m.commit, t.Message.ID)
	if err != nil {
		m.Log.Error("cannot return the original", zap.Stringer("delivery", t.Before.Key), zap.Error(err))
		body = nil
	} else {
		defer body.Close()
	}
	r := bounce.Write(t.Message, *t.Notice, body, bounce.Options{Hostname: m.o.Hostname, Now: time.Now()})
	return &r
}

// reportBacklogs gives the queues where a transition's report waits.
func reportBacklogs(t relay.Transition) []relay.Backlog {
	if t.Report == nil {
		return nil
	}
	var all []relay.Backlog
	for _, d := range t.Report.Deliveries {
		all = append(all, relay.Backlog{Lane: d.Lane, Account: d.Account, Due: d.Due})
	}
	return all
}

// commitUntilDone commits a transition, however often it has to try: after the
// final dot, a commit that is lost is a message delivered twice. It gives up only
// when somebody else has the delivery now, or the process ends.
//
// Meanwhile it keeps its slot, on purpose: a store that takes no outcomes must not
// be given more of them. What keeps failing shows in the gauge of uncommitted
// outcomes and, every few seconds, in the log. The evidence is all that a stranger
// adds to an outcome, so nothing else can be unrecordable for good.
func (m *Maker) commitUntilDone(t *relay.Transition) error {
	failing := false
	defer func() {
		if failing {
			m.metrics.uncommitted.Dec()
		}
	}()
	for pause := commitPause; ; pause = min(2*pause, commitPauseMax) {
		err := m.Store.Commit(m.commit, *t)
		if err == nil {
			return nil
		}
		if !failing {
			failing = true
			m.metrics.uncommitted.Inc()
		}
		m.metrics.commitFailures.Inc()
		fields := []zap.Field{
			zap.Stringer("delivery", t.Before.Key), zap.Error(err),
			zap.Bool("delivered", slices.ContainsFunc(t.Events, func(e events.Event) bool { return e.Kind == events.Delivered })),
		}
		switch {
		case errors.Is(err, relay.ErrUnrecordable) && t.After.Last != nil && len(t.After.Last.Hosts) > 0:
			// What a host showed must not cost the outcome.
			m.Log.Error("the evidence of an attempt cannot be recorded; the outcome goes without it", fields...)
			bare := *t.After.Last
			bare.Hosts = nil
			t.After.Last = &bare
			continue
		case errors.Is(err, relay.ErrStale), errors.Is(err, relay.ErrNotFound):
			m.Log.Warn("the delivery was taken over meanwhile; the outcome of this attempt is dropped", fields...)
			return err
		default:
			m.Log.Error("cannot commit; the outcome is kept and tried again", fields...)
		}
		select {
		case <-time.After(pause):
		case <-m.commit.Done():
			m.Log.Error("stopping with an outcome that was never committed; it will be attempted again", fields...)
			return err
		}
	}
}

// Release gives back the claim on a delivery that was not attempted, which makes
// it due at once. It says when it is due: now, or at the end of its lease when
// that fails.
func (m *Maker) Release(c relay.Claimed) time.Time { return m.giveBack(c, time.Now()) }

// giveBack ends the claim on a delivery that was not attempted and makes it due
// at a time. It says when it is due.
func (m *Maker) giveBack(c relay.Claimed, due time.Time) time.Time {
	after := c.Delivery
	after.Due = due
	after.Attempts--
	if err := m.Store.Commit(m.commit, relay.Transition{Message: c.Message, Before: c.Delivery, After: after}); err != nil {
		m.Log.Warn("cannot give back a claim; its lease will end by itself", zap.Stringer("delivery", c.Delivery.Key), zap.Error(err))
		return c.Delivery.Due
	}
	return after.Due
}
