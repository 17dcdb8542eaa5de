package webhook

import (
	"context"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
)

// slowPost is how long a POST may take before the endpoint has to share the
// doubtful slots with others like it.
const slowPost = 5 * time.Second

// loop drains one endpoint. Only its own goroutine uses it, except status,
// which is guarded by Sender.mu, and woken.
type loop struct {
	s     *Sender
	id    string
	woken chan struct{} // holds one token when rows can be had

	failures int  // in a row
	slow     bool // the last POST was
	maxBytes int  // of a batch; halved whenever the endpoint finds one too large
	status   EndpointStatus
}

// found is what a turn found in the outbox.
type found bool

const (
	something found = true
	nothing   found = false
)

// drain takes turns until nothing is left.
func (l *loop) drain(ctx context.Context) {
	for ctx.Err() == nil {
		if l.turn(ctx) == something {
			continue
		}
		l.note(EndpointStatus{})
		if l.s.finish(l) {
			return
		}
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.s.loops, l.id)
}

// turn reads the endpoint and its oldest rows anew, for either may have
// changed, and does the one thing that is due: drop, wait, or send.
func (l *loop) turn(ctx context.Context) found {
	select {
	case <-l.woken: // for what this turn will see
	default:
	}
	e, exists, err := l.s.box.Endpoint(ctx, l.id)
	var rows []Row
	if err == nil {
		rows, err = l.s.box.Rows(ctx, l.id, l.maxBytes)
	}
	if err != nil {
		l.storeTrouble(ctx, err)
		return something
	}
	if len(rows) == 0 {
		return nothing
	}
	l.note(EndpointStatus{Account: e.Account, Oldest: rows[0].At, Off: !e.Enabled})
	expired := l.expired(e, rows)
	switch {
	case !exists:
		l.drop(ctx, e, rows, dropDeleted)
	case expired > 0:
		l.drop(ctx, e, rows[:expired], dropExpired)
	case !e.Enabled:
		// Kept while it may be switched on again.
		l.sleep(ctx, l.s.o.PollInterval, nil)
	case !l.ripe(rows):
		l.gather(ctx, rows[0].At)
	default:
		l.send(ctx, e, rows)
	}
	return something
}

// expired counts the leading rows whose time is over. An event is given up
// only after the endpoint has failed (or is off): one that waited because the
// relay itself was down is tried once, however late.
func (l *loop) expired(e Endpoint, rows []Row) int {
	if l.failures == 0 && e.Enabled {
		return 0
	}
	limit := time.Now().Add(-l.s.o.RetryFor)
	i := slices.IndexFunc(rows, func(r Row) bool { return r.At.After(limit) })
	if i < 0 {
		return len(rows)
	}
	return i
}

// ripe reports whether rows are to be sent now: old enough, big enough, or
// overdue by an earlier failure.
func (l *loop) ripe(rows []Row) bool {
	age := time.Since(rows[0].At)
	if l.failures > 0 || age >= l.s.o.FlushInterval || age < 0 { // the clock was set back
		return true
	}
	total, biggest := 0, 0
	for _, r := range rows {
		total += len(r.Object)
		biggest = max(biggest, len(r.Object))
	}
	return total+biggest > l.maxBytes // no room for another
}

// gather waits for the batch to grow: until the age of its oldest row is
// due, or until more rows were committed, but with a pause in between,
// because every look reads the whole batch.
func (l *loop) gather(ctx context.Context, oldest time.Time) {
	interval := l.s.o.FlushInterval
	wait := min(interval, time.Until(oldest.Add(interval))) // a clock may be set back right now
	pause := min(wait, interval/8)
	l.sleep(ctx, pause, nil)
	l.sleep(ctx, wait-pause, l.woken)
}

// send posts rows and marks them, or backs off.
func (l *loop) send(ctx context.Context, e Endpoint, rows []Row) {
	objects := make([][]byte, len(rows))
	for i, r := range rows {
		objects[i] = r.Object
	}
	release, ok := l.s.acquire(ctx, l.failures > 0 || l.slow)
	if !ok {
		return
	}
	body := events.AppendBody(nil, objects...)
	a := l.s.post(ctx, e, body)
	release()
	l.s.m.posts.WithLabelValues(string(a.class)).Inc()
	l.s.m.seconds.Observe(a.took.Seconds())
	l.slow = a.took > slowPost
	if a.code == http.StatusRequestEntityTooLarge {
		l.maxBytes = max(1, len(body)/2)
	}
	if a.class != ClassOK {
		l.failed(ctx, e, a, len(rows))
		return
	}
	if l.failures > 0 {
		l.s.log.Info("webhook recovered", zap.String("endpoint", l.id), zap.Int("failures", l.failures))
	}
	l.failures = 0
	if l.mark(ctx, rows) {
		l.s.m.sent.Add(float64(len(rows)))
	}
}

// failed records a failure and waits until the next try is due, or the
// endpoint is not what it was.
func (l *loop) failed(ctx context.Context, e Endpoint, a answer, n int) {
	if ctx.Err() != nil {
		return // cut off by the order to stop, which says nothing about e
	}
	l.failures++
	wait := l.backoff()
	next := time.Now().Add(wait)
	l.s.log.Warn("webhook failed", zap.String("endpoint", l.id), zap.String("account", e.Account),
		zap.String("outcome", string(a.class)), zap.Int("code", a.code), zap.Error(a.err),
		zap.Int("events", n), zap.Int("failures", l.failures), zap.Duration("retry_in", wait))
	l.s.mu.Lock()
	l.status.Failures, l.status.LastError, l.status.LastCode, l.status.NextTry = l.failures, a.class, a.code, next
	l.s.mu.Unlock()
	for left := wait; left > 0 && ctx.Err() == nil; left = time.Until(next) {
		l.sleep(ctx, min(left, l.s.o.PollInterval), nil)
		now, exists, err := l.s.box.Endpoint(ctx, l.id)
		if err == nil && (!exists || !sameTarget(e, now)) {
			l.failures = 0
			return
		}
	}
}

// backoff is the delay after the failures so far.
func (l *loop) backoff() time.Duration {
	d := l.s.o.RetryAfter
	for range l.failures - 1 {
		if d >= l.s.o.RetryMax {
			break
		}
		d *= 2
	}
	return min(d, l.s.o.RetryMax)
}

// sameTarget reports whether a POST to b would go the way of one to a.
func sameTarget(a, b Endpoint) bool {
	return a.URL == b.URL && a.Enabled == b.Enabled && credentialsOf(a) == credentialsOf(b) &&
		string(a.SigningKey) == string(b.SigningKey)
}

// drop gives rows up.
func (l *loop) drop(ctx context.Context, e Endpoint, rows []Row, why string) {
	if !l.mark(ctx, rows) {
		return
	}
	l.s.m.dropped.WithLabelValues(why).Add(float64(len(rows)))
	l.s.log.Warn("webhook events dropped", zap.String("endpoint", l.id), zap.String("account", e.Account),
		zap.String("why", why), zap.Int("events", len(rows)), zap.Time("oldest", rows[0].At))
}

// mark removes rows from the outbox. It insists while the store is in
// trouble, because what is not marked is sent again, and finishes even when
// ctx has just ended.
func (l *loop) mark(ctx context.Context, rows []Row) bool {
	last := rows[len(rows)-1].Seq
	for {
		err := l.s.box.Sent(context.WithoutCancel(ctx), l.id, last)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		l.storeTrouble(ctx, err)
	}
}

func (l *loop) storeTrouble(ctx context.Context, err error) {
	if ctx.Err() == nil {
		l.s.log.Error("webhook outbox failed", zap.String("endpoint", l.id), zap.Error(err))
		l.sleep(ctx, l.s.o.RetryAfter, nil)
	}
}

// note tells [Sender.Status] what waits, and keeps what it knows of failures
// while something does.
func (l *loop) note(st EndpointStatus) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if l.failures > 0 {
		st.Failures, st.LastError, st.LastCode, st.NextTry = l.failures, l.status.LastError, l.status.LastCode, l.status.NextTry
	}
	l.status = st
}

// sleep waits for d, for ctx to end, or for early (nil: never).
func (l *loop) sleep(ctx context.Context, d time.Duration, early <-chan struct{}) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-early:
	}
}
