package queue

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tlsrelay/relay"
)

// tether is the context that a worker tries one delivery after another in. It is
// made anew when an attempt was cut off.
type tether struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// lease keeps the claim on a delivery while it is being tried, and gives the
// context of the attempt. The lease is as long as the delay before the next
// attempt would be, which a slow host may well exceed.
func (c *crew) lease(j *job, t *tether) context.Context {
	if t.ctx == nil || t.ctx.Err() != nil {
		t.ctx, t.cancel = context.WithCancel(c.attempts)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cancel = t.cancel
	if j.brief() || time.Since(j.began) >= slowAfter {
		c.keep(j)
	}
	return t.ctx
}

// brief reports whether the lease needs renewal before an attempt counts as
// slow. Nearly no attempt does, and nearly no lease: the others are kept from
// then on.
func (j *job) brief() bool { return j.delivery.Due.Sub(j.began)/2 < slowAfter }

// keep has the lease of an attempt under way renewed when half of it is over. The
// caller holds j.mu.
func (c *crew) keep(j *job) {
	if j.cancel != nil && j.renewal == nil && !j.over {
		half := j.held().Due.Sub(j.began) / 2
		j.renewal = time.AfterFunc(time.Until(j.began.Add(half)), func() { c.renew(j) })
	}
}

// renew moves the end of the lease.
func (c *crew) renew(j *job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return
	}
	now := time.Now()
	if now.Sub(j.began) > attemptLimit {
		j.cancel()
	}
	before := j.held()
	after := before
	after.Due = now.Add(c.o.Schedule.Delay(before.Attempts))
	err := c.store.Commit(c.commits, relay.Transition{Message: j.message, Before: before, After: after})
	switch {
	case err == nil:
		j.renewed = &after
	case errors.Is(err, relay.ErrStale), errors.Is(err, relay.ErrNotFound):
		// An operator's drop, or another node after a long sleep of this one.
		c.log.Warn("lost a delivery while trying it", zap.Stringer("delivery", before.Key))
		j.cancel()
		return
	default:
		c.log.Error("cannot renew a lease", zap.Stringer("delivery", before.Key), zap.Error(err))
	}
	j.renewal.Reset(c.o.Schedule.Delay(before.Attempts) / 2)
}

// held is the delivery as the store knows it to be claimed.
func (j *job) held() relay.Delivery {
	d := j.delivery
	if r := j.renewed; r != nil && r.Due.After(d.Due) {
		d = *r
	}
	return d
}

// end ends the attempt's hold on the lease and gives what is to be stepped.
func (j *job) end() relay.Delivery {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
	if j.renewal != nil {
		j.renewal.Stop()
	}
	return j.held()
}
