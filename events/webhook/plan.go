package webhook

import (
	"container/heap"
	"slices"
	"time"
)

// verdict is the result of a POST, as far as it matters for what is sent next.
type verdict int

const (
	taken     verdict = iota // 2xx
	refused                  // the endpoint does not take these events
	tooLarge                 // it does not take so many of them (413)
	busy                     // it does not take events now (408, 429, 503)
	silent                   // it did not answer
	unreached                // there was no connection, or no request could be made
	verdicts
)

// reason is why rows are sent now.
type reason int

const (
	fresh  reason = iota // a batch of what was never sent
	again                // a batch that was refused once
	half                 // a part of a batch that was refused twice
	aside                // a single row that was set aside
	atLast               // a row whose time is over, alone, before it is dropped
	reasons
)

// action is what follows from a POST.
type action int

const (
	remove  action = iota // remove the rows: the endpoint has them
	repeat                // pause the endpoint, then send the same rows again
	shrink                // send the rows again in smaller batches
	split                 // send the rows in two halves; set a single row aside
	putOff                // let this row wait longer, and no other
	drop                  // give the row up
	waitAll               // pause the endpoint, and count nothing against the rows
)

// actions is the whole rule.
//
// An endpoint may refuse a batch because of one row, and the other rows must not wait
// for that one. So a batch that was refused twice is sent in halves, and these in halves
// again, until the unwanted row is alone; that row is set aside. An endpoint that refuses
// three single rows in succession would refuse anything: what was refused before then
// waits, longer each time (plan.alone). Fresh rows are still sent; if the endpoint
// refuses these as well, everything waits.
//
// No answer counts as a refusal, because a consumer may hang or crash on one event, or be
// too slow for so many. "Not now" does not count, because it says nothing about the rows.
//
// A row is dropped when its time is over and it was sent alone, whatever the answer. If
// the endpoint cannot be reached, a row is dropped when its time is over.
var actions = [reasons][verdicts]action{
	fresh:  {taken: remove, refused: repeat, tooLarge: shrink, silent: repeat, busy: waitAll, unreached: waitAll},
	again:  {taken: remove, refused: split, tooLarge: split, silent: split, busy: waitAll, unreached: waitAll},
	half:   {taken: remove, refused: split, tooLarge: split, silent: split, busy: waitAll, unreached: waitAll},
	aside:  {taken: remove, refused: putOff, tooLarge: putOff, silent: putOff, busy: waitAll, unreached: waitAll},
	atLast: {taken: remove, refused: drop, tooLarge: drop, silent: drop, busy: drop, unreached: waitAll},
}

const (
	// After aloneInARow single rows that were refused in succession, the endpoint
	// counts as failing.
	aloneInARow = 3
	// share is how long refused rows may be sent again before fresh rows get a turn.
	share = 10 * time.Second
	// growAfter is how many full batches an endpoint accepts before the next are larger.
	growAfter = 16
)

// batch is rows that are sent together. No other rows are in its span.
type batch struct {
	Span
	oldest time.Time // when the oldest event happened
	rows   int       // how many there were
	reason reason

	tries int       // of a row set aside: how often it was refused since
	due   time.Time // of a row set aside: when it is sent next
}

// plan decides what one endpoint is sent next. It exists in memory only: after a restart
// all rows are fresh, and refused ones are found again. Its methods change nothing else.
type plan struct {
	o Options

	next    uint64     // the first row that was never sent
	batches []batch    // again or half, in the order in which they are sent
	pairs   [][2]batch // halves, sent when batches is empty
	aside   asideHeap
	afresh  bool // the endpoint failed on single rows: send the largest batch next

	alone    int       // rows refused in succession when they were first sent alone
	failures int       // pauses since the endpoint last took anything
	untaken  int       // failed POSTs since then, as people are told
	until    time.Time // nothing is sent before
	hold     time.Time // only fresh rows are sent before
	deaf     time.Time // since when no answer has come; zero: the last POST had one

	maxBytes int           // of a batch
	full     int           // how many such batches were taken in a row
	spent    time.Duration // on other rows since fresh rows were sent
}

func newPlan(o Options) plan { return plan{o: o, maxBytes: o.FlushBytes} }

// choose returns what is sent now instead of fresh rows; ok is false when it is the turn
// of these. Halves come before rows set aside. While the endpoint fails, rows whose time
// is over come first, so that the outbox does not fill up.
func (p *plan) choose(now time.Time) (b batch, ok bool) {
	if p.failures > 0 && !p.held(now) && p.bringForward(now) {
		return p.batches[0], true
	}
	if p.spent >= share {
		return batch{}, false
	}
	return p.other(now)
}

// other is choose when there are no fresh rows.
func (p *plan) other(now time.Time) (b batch, ok bool) {
	if p.held(now) {
		return batch{}, false
	}
	if len(p.batches) == 0 && len(p.pairs) > 0 {
		i := p.nextPair()
		p.batches = append(p.batches, p.pairs[i][:]...)
		p.pairs = slices.Delete(p.pairs, i, i+1)
	}
	switch {
	case len(p.batches) > 0:
		return p.batches[0], true
	case len(p.aside) > 0 && !p.aside[0].due.After(now):
		return p.aside[0], true
	}
	return batch{}, false
}

// nextPair returns the pair that is sent next. While the endpoint takes anything that is
// the largest, so that it soon has most of what it wants. Otherwise it is the smallest,
// so that three single rows soon show that the endpoint fails; after these it is the
// largest again.
func (p *plan) nextPair() int {
	size := func(pair [2]batch) int { return pair[0].rows + pair[1].rows }
	best := len(p.pairs) - 1
	for i, pair := range slices.Backward(p.pairs) {
		if p.failures == 0 || p.afresh {
			if size(pair) > size(p.pairs[best]) {
				best = i
			}
		} else if size(pair) < size(p.pairs[best]) {
			best = i
		}
	}
	p.afresh = false
	return best
}

// held reports whether only fresh rows may be sent.
func (p *plan) held(now time.Time) bool { return p.hold.After(now) }

// bringForward moves a batch with a row whose time is over to the front.
func (p *plan) bringForward(now time.Time) bool {
	over := func(b batch) bool { return p.over(b.oldest, now) }
	i := slices.IndexFunc(p.batches, over)
	if i < 0 {
		j := slices.IndexFunc(p.pairs, func(pair [2]batch) bool { return over(pair[0]) || over(pair[1]) })
		if j < 0 {
			return false
		}
		pair := p.pairs[j]
		p.pairs = slices.Delete(p.pairs, j, j+1)
		p.batches = slices.Insert(p.batches, 0, pair[:]...)
		i = slices.IndexFunc(p.batches, over)
	}
	b := p.batches[i]
	p.batches = slices.Insert(slices.Delete(p.batches, i, i+1), 0, b)
	return true
}

// fresh returns the batch of all rows that were never sent.
func (p *plan) fresh() batch { return batch{Span: From(p.next), reason: fresh} }

// over reports whether the time of an event is over.
func (p *plan) over(at, now time.Time) bool { return !at.After(now.Add(-p.o.RetryFor)) }

// unreachable reports whether no answer has come for so long that rows expire by their
// age alone. A consumer loses nothing by a restart.
func (p *plan) unreachable(now time.Time) bool {
	return !p.deaf.IsZero() && now.Sub(p.deaf) >= p.o.RetryMax
}

// sent is what was sent, and the result.
type sent struct {
	batch         // as chosen
	rows    []Row // those of its rows that were sent: the oldest
	verdict verdict
	size    int  // octets of the body
	full    bool // there was no room for another row
	took    time.Duration
}

// outcome is what follows from a POST. pause is how long other rows wait because of it;
// 0: they do not.
type outcome struct {
	action   action
	setAside bool
	pause    time.Duration
}

// learn updates the plan with the result of a POST.
func (p *plan) learn(s sent, now time.Time) outcome {
	why := s.reason
	if why != aside && len(s.rows) == 1 && p.lastChance(s.rows[0], now) {
		why = atLast
	}
	o := outcome{action: actions[why][s.verdict]}
	if o.action == shrink && len(s.rows) == 1 {
		o.action = repeat // it cannot be any smaller
	}
	p.hear(s, now)
	switch o.action {
	case remove, drop:
		p.leave(s)
	case repeat:
		p.leave(s)
		p.batches = append(p.batches, batchOf(s.rows, again))
		o.pause = p.pause(now, &p.until)
	case split:
		p.leave(s)
		o.setAside, o.pause = p.split(s, now)
	case putOff:
		p.aside[0].tries++
		p.aside[0].due = now.Add(p.backoff(p.aside[0].tries))
		heap.Fix(&p.aside, 0)
	case waitAll:
		o.pause = p.pause(now, &p.until)
	}
	if s.verdict != taken && (s.reason == fresh || s.reason == again || o.pause > 0) {
		p.untaken++
	}
	return o
}

// lastChance reports whether a row is sent alone because its time is over. This needs a
// failure of the endpoint: rows that waited because the relay was down are first sent
// like all others.
func (p *plan) lastChance(r Row, now time.Time) bool {
	return p.failures > 0 && p.over(r.At, now)
}

// hear updates what is known of the endpoint, whatever was sent.
func (p *plan) hear(s sent, now time.Time) {
	switch s.verdict {
	case taken:
		p.deaf, p.hold, p.failures, p.untaken, p.alone = time.Time{}, time.Time{}, 0, 0, 0
	case silent, unreached:
		if p.deaf.IsZero() {
			p.deaf = now
		}
	default:
		p.deaf = time.Time{}
	}
	switch {
	case s.verdict == tooLarge && len(s.rows) > 1:
		p.maxBytes, p.full = max(1, min(p.maxBytes, s.size/2)), 0
	case s.verdict == taken && s.reason == fresh && s.full:
		if p.full++; p.full == growAfter {
			p.maxBytes, p.full = min(2*p.maxBytes, p.o.FlushBytes), 0
		}
	}
	if p.spent += s.took; s.reason == fresh {
		p.spent = 0
	}
}

// leave takes the rows that were sent out of the plan.
func (p *plan) leave(s sent) {
	last := s.rows[len(s.rows)-1].Seq
	switch {
	case s.reason == fresh:
		p.next = last + 1
	case s.reason == aside:
		heap.Pop(&p.aside)
	case last < s.Last:
		p.batches[0].First = last + 1
	default:
		p.batches = p.batches[1:]
	}
}

// split puts the halves of refused rows before all others, and sets a single row aside.
func (p *plan) split(s sent, now time.Time) (setAside bool, pause time.Duration) {
	if n := len(s.rows); n > 1 {
		p.pairs = append(p.pairs, [2]batch{batchOf(s.rows[:n/2], half), batchOf(s.rows[n/2:], half)})
	} else {
		b := batchOf(s.rows, aside)
		b.tries, b.due = 1, now.Add(p.backoff(1))
		heap.Push(&p.aside, b)
		setAside = true
		p.alone++
	}
	if p.alone >= aloneInARow {
		// Batches are sent again, the largest first.
		p.alone, p.afresh = 0, true
		return setAside, p.pause(now, &p.hold)
	}
	if s.verdict == silent {
		return setAside, p.pause(now, &p.hold)
	}
	return setAside, 0
}

// pause sets the end of a pause. Each one is longer than the one before.
func (p *plan) pause(now time.Time, end *time.Time) time.Duration {
	p.failures++
	d := p.backoff(p.failures)
	*end = now.Add(d)
	return d
}

// backoff is the delay after a number of failures.
func (p *plan) backoff(failures int) time.Duration {
	d := p.o.RetryAfter
	for range failures - 1 {
		if d >= p.o.RetryMax {
			break
		}
		d *= 2
	}
	return min(d, p.o.RetryMax)
}

// forgive forgets the failures of an endpoint whose settings were changed.
func (p *plan) forgive(now time.Time) {
	p.alone, p.failures, p.untaken = 0, 0, 0
	p.until, p.hold, p.deaf = time.Time{}, time.Time{}, time.Time{}
	for i := range p.aside {
		p.aside[i].due = now
	}
	heap.Init(&p.aside)
}

// see notes when the oldest row of a chosen batch happened. Older rows of it may have
// been removed.
func (p *plan) see(b batch, at time.Time) {
	if b.reason == again || b.reason == half {
		p.batches[0].oldest = at
	}
}

// gone notes that a chosen batch has no rows any more.
func (p *plan) gone(b batch) {
	if b.reason == aside {
		heap.Pop(&p.aside)
		return
	}
	p.batches = p.batches[1:]
}

// goneTo notes that the rows up to seq were removed.
func (p *plan) goneTo(seq uint64) {
	below := func(b batch) bool { return b.Last <= seq }
	for _, pair := range p.pairs {
		p.batches = append(p.batches, pair[:]...)
	}
	p.pairs = nil
	p.batches = slices.DeleteFunc(p.batches, below)
	p.aside = slices.DeleteFunc(p.aside, below)
	heap.Init(&p.aside)
	p.next = max(p.next, seq+1)
}

// idle reports whether all rows are fresh.
func (p *plan) idle() bool { return len(p.batches)+len(p.pairs)+len(p.aside) == 0 }

// nextOther is when the next rows are sent that are not fresh; ok is false when there
// are none.
func (p *plan) nextOther() (at time.Time, ok bool) {
	if len(p.batches)+len(p.pairs) == 0 && len(p.aside) > 0 {
		at = p.aside[0].due
	}
	if p.hold.After(at) {
		at = p.hold
	}
	return at, !p.idle()
}

// nextTry is when rows are sent again after a failure.
func (p *plan) nextTry() time.Time {
	if p.hold.After(p.until) {
		return p.hold
	}
	return p.until
}

// oldest is when the oldest event happened that was refused and is not set aside; zero:
// there is none.
func (p *plan) oldest() (at time.Time) {
	see := func(b batch) {
		if at.IsZero() || b.oldest.Before(at) {
			at = b.oldest
		}
	}
	for _, b := range p.batches {
		see(b)
	}
	for _, pair := range p.pairs {
		see(pair[0])
		see(pair[1])
	}
	return at
}

func batchOf(rows []Row, why reason) batch {
	return batch{Span: Span{rows[0].Seq, rows[len(rows)-1].Seq}, oldest: rows[0].At, rows: len(rows), reason: why}
}

// asideHeap is the rows set aside, the one that is due next first.
type asideHeap []batch

func (h asideHeap) Len() int           { return len(h) }
func (h asideHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h asideHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *asideHeap) Push(b any)        { *h = append(*h, b.(batch)) }
func (h *asideHeap) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	*h = (*h)[:last]
	return b
}
