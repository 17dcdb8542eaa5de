// From a 250 to the block event, 10 of 10: this file posts what waits for one
// endpoint, until it says 2xx.

package webhook

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
)

// slowPost is the time after which a POST counts as slow. After a slow one, the next POST
// to the endpoint needs a slot of Sender.doubtful as well.
const slowPost = 5 * time.Second

// loop drains one endpoint. Each of its rows in the outbox is one event. The sender
// starts the loop, or wakes it, when a commit has added rows (sender.go). plan.go says
// which rows are sent next. Fresh rows are those that were never sent.
//
// Only the loop's own goroutine uses it, except woken and status. Sender.mu guards status.
type loop struct {
	s     *Sender
	id    string
	woken chan struct{} // holds one token when there are new rows

	plan    plan
	target  Endpoint  // as it was on the last turn
	slow    bool      // the last POST was slow
	waiting time.Time // when the oldest event happened that was never sent; zero: there is none
	told    bool      // the log has said that rows are set aside; false again when none is
	lost    lost      // rows given up that the log has not reported yet
	status  EndpointStatus
}

// found is what a turn found in the outbox.
type found bool

const (
	something found = true
	nothing   found = false
)

// drain works until nothing is left.
func (l *loop) drain(ctx context.Context) {
	defer func() { l.tellLost() }()
	for ctx.Err() == nil {
		if l.turn(ctx) == something {
			continue
		}
		l.setStatus(EndpointStatus{})
		if l.s.finish(l) {
			return
		}
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	delete(l.s.loops, l.id)
}

// turn reads the endpoint again, because it may have changed, and does the one thing that
// is due: drop, wait or send.
func (l *loop) turn(ctx context.Context) found {
	select {
	case <-l.woken: // this turn reads the new rows anyway
	default:
	}
	e, exists, err := l.s.box.Endpoint(ctx, l.id)
	if err != nil {
		l.storeTrouble(ctx, err)
		return something
	}
	now := time.Now()
	if !sameTarget(l.target, e) {
		l.plan.forgive(now)
	}
	l.target = e
	switch wait := l.plan.until.Sub(now); {
	case !exists:
		return l.clear(ctx, e)
	case !e.Enabled:
		return l.rest(ctx, e)
	case wait > 0:
		l.sleep(ctx, min(wait, l.s.o.PollInterval), nil)
		return something
	}
	if l.plan.unreachable(now) && l.expire(ctx, e) == something {
		return something
	}
	if b, ok := l.plan.choose(now); ok {
		l.ask(ctx, e, b)
		return something
	}
	return l.askFresh(ctx, e)
}

// clear drops the rows of an endpoint that was deleted.
func (l *loop) clear(ctx context.Context, e Endpoint) found {
	rows, ok := l.read(ctx, From(0), l.s.o.FlushBytes)
	if ok && len(rows) == 0 {
		return nothing
	}
	if ok && l.remove(ctx, Span{Last: rows[len(rows)-1].Seq}) {
		l.plan.goneTo(rows[len(rows)-1].Seq)
		l.s.m.dropped.WithLabelValues(dropDeleted).Add(float64(len(rows)))
		l.s.log.Warn("webhook events dropped", zap.String("endpoint", l.id), zap.String("account", e.Account),
			zap.String("why", dropDeleted), zap.Int("events", len(rows)), zap.Time("oldest", rows[0].At))
	}
	return something
}

// rest waits while the endpoint is switched off. Its rows stay until their time is over.
func (l *loop) rest(ctx context.Context, e Endpoint) found {
	if l.expire(ctx, e) == something {
		return something
	}
	rows, ok := l.read(ctx, From(0), 1)
	if ok && len(rows) == 0 {
		return nothing
	}
	if ok {
		l.waiting = rows[0].At
		l.note(e)
		l.sleep(ctx, l.s.o.PollInterval, nil)
	}
	return something
}

// expire drops the oldest rows whose time is over, unsent.
func (l *loop) expire(ctx context.Context, e Endpoint) found {
	rows, ok := l.read(ctx, From(0), 1)
	if ok && len(rows) > 0 && l.plan.over(rows[0].At, time.Now()) {
		rows, ok = l.read(ctx, From(0), l.s.o.FlushBytes)
	} else if ok {
		return nothing
	}
	if !ok {
		return something // the store failed: look again
	}
	now := time.Now()
	if i := slices.IndexFunc(rows, func(r Row) bool { return !l.plan.over(r.At, now) }); i >= 0 {
		rows = rows[:i]
	}
	if len(rows) > 0 && l.remove(ctx, Span{Last: rows[len(rows)-1].Seq}) {
		l.plan.goneTo(rows[len(rows)-1].Seq)
		l.lose(e, rows)
	}
	return something
}

// ask sends rows that were refused before. A row whose time is over is dropped,
// but not before it was sent alone.
func (l *loop) ask(ctx context.Context, e Endpoint, b batch) {
	now := time.Now()
	atLast := l.plan.over(b.oldest, now) && (b.reason == aside || l.plan.failures > 0)
	size := l.plan.maxBytes
	if atLast {
		size = 1
	}
	rows, ok := l.read(ctx, b.Span, size)
	switch {
	case !ok:
	case len(rows) == 0:
		l.plan.gone(b)
	case atLast && b.reason == aside: // it was sent alone before
		if l.remove(ctx, b.Span) {
			l.plan.gone(b)
			l.lose(e, rows)
		}
		l.note(e)
	case atLast && !l.plan.over(rows[0].At, now):
		l.plan.see(b, rows[0].At) // older rows were removed
	default:
		l.send(ctx, e, sent{batch: b, rows: rows})
	}
}

// askFresh sends fresh rows once there are enough of them. Until then it sends rows that
// were refused before.
func (l *loop) askFresh(ctx context.Context, e Endpoint) found {
	b := l.plan.fresh()
	size := l.plan.maxBytes
	if l.plan.failures > 0 {
		size = 1 // the time of the oldest may be over, and then it is sent alone
	}
	rows, ok := l.read(ctx, b.Span, size)
	now := time.Now()
	if ok && size == 1 && len(rows) > 0 && !l.plan.over(rows[0].At, now) {
		rows, ok = l.read(ctx, b.Span, l.plan.maxBytes)
	}
	if !ok {
		return something
	}
	l.waiting = time.Time{}
	if len(rows) > 0 {
		l.waiting = rows[0].At
	}
	l.note(e)
	s := sent{batch: b, rows: rows, full: l.full(rows)}
	if len(rows) > 0 && l.ripe(s, now) {
		l.send(ctx, e, s)
		return something
	}
	if b, ok := l.plan.other(now); ok {
		l.ask(ctx, e, b)
		return something
	}
	if len(rows) == 0 && l.plan.idle() {
		return nothing
	}
	l.gather(ctx, now)
	return something
}

// full reports whether a batch of these rows has no room for another one.
func (l *loop) full(rows []Row) bool {
	total, biggest := 0, 0
	for _, r := range rows {
		total += len(r.Object)
		biggest = max(biggest, len(r.Object))
	}
	return total+biggest > l.plan.maxBytes
}

// ripe reports whether fresh rows are sent now: they are old enough, or enough of them,
// or late because of an earlier failure.
func (l *loop) ripe(s sent, now time.Time) bool {
	age := now.Sub(s.rows[0].At)
	return s.full || l.plan.failures > 0 || age >= l.s.o.FlushInterval || age < 0 // the clock was set back
}

// gather waits for the batch to grow: until its oldest row is old enough, or until there
// are new rows. It pauses before it looks again, because each look reads the whole batch.
// It does not wait longer than until other rows are due.
func (l *loop) gather(ctx context.Context, now time.Time) {
	interval := l.s.o.FlushInterval
	wait := l.s.o.PollInterval
	pause := time.Duration(0)
	if !l.waiting.IsZero() {
		wait = min(interval, l.waiting.Add(interval).Sub(now)) // the clock may have been set back
		pause = min(wait, interval/8)
	}
	if at, ok := l.plan.nextOther(); ok {
		wait = min(wait, at.Sub(now))
		pause = min(pause, wait)
	}
	l.sleep(ctx, pause, nil)
	l.sleep(ctx, wait-pause, l.woken)
}

// send posts rows, and does what the plan says follows from the answer.
func (l *loop) send(ctx context.Context, e Endpoint, s sent) {
	objects := make([][]byte, len(s.rows))
	for i, r := range s.rows {
		objects[i] = r.Object
	}
	release, ok := l.s.acquire(ctx, s.reason != fresh || l.plan.failures > 0 || l.slow)
	if !ok {
		return
	}
	body := events.AppendBody(nil, objects...)
	a := l.s.post(ctx, e, body)
	release()
	l.s.m.posts.WithLabelValues(string(a.class)).Inc()
	l.s.m.seconds.Observe(a.took.Seconds())
	l.slow = a.took > slowPost
	if a.class != ClassOK && ctx.Err() != nil {
		return // the relay stops, which says nothing about e
	}
	s.verdict, s.size, s.took = a.verdict(), len(body), a.took
	l.settle(ctx, e, s, a)
}

// settle updates plan, status and log with the result of a POST.
func (l *loop) settle(ctx context.Context, e Endpoint, s sent, a answer) {
	untaken := l.plan.untaken
	o := l.plan.learn(s, time.Now())
	l.follow(ctx, e, s, o)
	if s.verdict != taken && s.reason != aside {
		l.s.mu.Lock()
		l.status.LastError, l.status.LastCode = a.class, a.code
		l.s.mu.Unlock()
	}
	switch {
	case o.pause > 0:
		l.s.log.Warn("webhook failed", zap.String("endpoint", l.id), zap.String("account", e.Account),
			zap.String("outcome", string(a.class)), zap.Int("code", a.code), zap.Error(a.err),
			zap.Int("events", len(s.rows)), zap.Int("failures", l.plan.untaken), zap.Duration("retry_in", o.pause))
	case untaken > 0 && l.plan.untaken == 0:
		l.s.log.Info("webhook recovered", zap.String("endpoint", l.id), zap.Int("failures", untaken))
	}
	l.note(e)
}

// follow removes rows from the outbox as the plan says: those that the endpoint has taken,
// and those that are given up.
func (l *loop) follow(ctx context.Context, e Endpoint, s sent, o outcome) {
	span := Span{s.First, s.rows[len(s.rows)-1].Seq}
	switch o.action {
	case remove:
		if l.remove(ctx, span) {
			l.s.m.sent.Add(float64(len(s.rows)))
		}
	case drop:
		if l.remove(ctx, span) {
			l.lose(e, s.rows)
		}
	}
	if len(l.plan.aside) == 0 {
		l.told = false
	}
	if !o.setAside {
		return
	}
	l.s.m.setAside.Inc()
	if !l.told {
		l.told = true
		l.s.log.Warn("webhook event refused alone and set aside; more of them are counted, not logged",
			zap.String("endpoint", l.id), zap.String("account", e.Account), zap.String("event_id", eventID(s.rows[0].Object)))
	}
}

// eventID reads the id of an event from its wire form, "" if it has none.
func eventID(object []byte) string {
	var e struct {
		ID string `json:"sg_event_id"`
	}
	if json.Unmarshal(object, &e) != nil {
		return ""
	}
	return e.ID
}

// sameTarget reports whether a POST to b would be the same as one to a.
func sameTarget(a, b Endpoint) bool {
	return a.URL == b.URL && a.Enabled == b.Enabled && credentialsOf(a) == credentialsOf(b) &&
		string(a.SigningKey) == string(b.SigningKey)
}

// lose counts rows that were dropped because their time was over. The log reports them
// together, not one by one (lost.go).
func (l *loop) lose(e Endpoint, rows []Row) {
	l.s.m.dropped.WithLabelValues(dropExpired).Add(float64(len(rows)))
	if l.lost.add(len(rows), rows[0].At) {
		l.tellLost()
	}
}

func (l *loop) tellLost() {
	if n, oldest := l.lost.tell(); n > 0 {
		l.s.log.Warn("webhook events dropped", zap.String("endpoint", l.id), zap.String("account", l.target.Account),
			zap.String("why", dropExpired), zap.Int("events", n), zap.Time("oldest", oldest))
	}
}

// read returns rows; ok is false when the store failed.
func (l *loop) read(ctx context.Context, s Span, maxBytes int) (rows []Row, ok bool) {
	rows, err := l.s.box.Rows(ctx, l.id, s, maxBytes)
	if err != nil {
		l.storeTrouble(ctx, err)
		return nil, false
	}
	return rows, true
}

// remove removes rows from the outbox. It tries again while the store fails, because
// what is not removed is sent again. It tries once even when ctx has ended.
func (l *loop) remove(ctx context.Context, s Span) bool {
	for {
		err := l.s.box.Remove(context.WithoutCancel(ctx), l.id, s)
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

// note updates what [Sender.Status] shows of the endpoint.
func (l *loop) note(e Endpoint) {
	st := EndpointStatus{Account: e.Account, Off: !e.Enabled, Oldest: l.plan.oldest(), Aside: len(l.plan.aside)}
	if !l.waiting.IsZero() && (st.Oldest.IsZero() || l.waiting.Before(st.Oldest)) {
		st.Oldest = l.waiting
	}
	if st.Failures = l.plan.untaken; st.Failures > 0 {
		l.s.mu.Lock()
		st.LastError, st.LastCode, st.NextTry = l.status.LastError, l.status.LastCode, l.plan.nextTry()
		l.s.mu.Unlock()
	}
	l.setStatus(st)
}

func (l *loop) setStatus(st EndpointStatus) {
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	l.status = st
}

// sleep waits for d, for ctx to end, or for early (nil: never).
func (l *loop) sleep(ctx context.Context, d time.Duration, early <-chan struct{}) {
	if d <= 0 {
		return
	}
	if l.lost.due() {
		l.tellLost()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-early:
	}
}
