package attempt

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/relay"
)

// SlowAfter is how long an attempt is under way until it counts as slow. From then
// on its lease is kept ([Maker.KeepLease]).
const SlowAfter = 10 * time.Second

// Job is a claimed delivery. The lease of the claim is as long as the delay before
// the next attempt would be, which a slow host may well exceed; so it is renewed
// while the attempt goes on.
type Job struct {
	Message  relay.Message
	Delivery relay.Delivery // as claimed
	Began    time.Time      // of the attempt

	// mu guards what the worker shares with the renewal, which keeps it locked for
	// as long as the store takes.
	mu      sync.Mutex
	renewed *relay.Delivery // with the lease as it was last renewed
	renewal *time.Timer     // nil: not yet
	over    bool
	cancel  context.CancelFunc
}

// lease begins the attempt of j and gives its context.
func (w *Worker) lease(j *Job) context.Context {
	if w.ctx == nil || w.ctx.Err() != nil {
		w.ctx, w.cancel = context.WithCancel(w.m.attempt)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cancel = w.cancel
	if j.short() || time.Since(j.Began) >= SlowAfter {
		w.m.keepLease(j)
	}
	return w.ctx
}

// short reports whether the lease has to be renewed before the attempt counts as
// slow. Hardly any lease is so short, and hardly any attempt is slow, so that
// hardly any needs a timer.
func (j *Job) short() bool { return j.Delivery.Due.Sub(j.Began)/2 < SlowAfter }

// KeepLease has the lease of an attempt that counts as slow renewed until it ends.
// It may wait for a renewal that waits for the store.
func (m *Maker) KeepLease(j *Job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	m.keepLease(j)
}

// keepLease has the lease renewed when half of it is over. The caller has locked
// j.mu.
func (m *Maker) keepLease(j *Job) {
	if j.cancel != nil && j.renewal == nil && !j.over {
		half := j.leased().Due.Sub(j.Began) / 2
		j.renewal = time.AfterFunc(time.Until(j.Began.Add(half)), func() { m.renew(j) })
	}
}

// renew moves the end of the lease, and cuts off an attempt without end.
func (m *Maker) renew(j *Job) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.over {
		return
	}
	now := time.Now()
	if now.Sub(j.Began) > timeLimit {
		j.cancel()
	}
	before := j.leased()
	after := before
	after.Due = now.Add(m.o.Schedule.Delay(before.Attempts))
	err := m.Store.Commit(m.commit, relay.Transition{Message: j.Message, Before: before, After: after})
	switch {
	case err == nil:
		j.renewed = &after
	case errors.Is(err, relay.ErrStale), errors.Is(err, relay.ErrNotFound):
		// An operator dropped it, or another node claimed it after a long sleep of
		// this one.
		m.Log.Warn("lost a delivery while trying it", zap.Stringer("delivery", before.Key))
		j.cancel()
		return
	default:
		m.Log.Error("cannot renew a lease", zap.Stringer("delivery", before.Key), zap.Error(err))
	}
	j.renewal.Reset(m.o.Schedule.Delay(before.Attempts) / 2)
}

// leased is the delivery as the store knows it to be claimed.
func (j *Job) leased() relay.Delivery {
	if j.renewed != nil {
		return *j.renewed
	}
	return j.Delivery
}

// end stops the renewal and gives the delivery that is to be stepped.
func (j *Job) end() relay.Delivery {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
	if j.renewal != nil {
		j.renewal.Stop()
	}
	return j.leased()
}
