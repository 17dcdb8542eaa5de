package webhook

import (
	"container/heap"
	"slices"
	"time"
)

// verdict is what came of a POST, as far as it matters for what is sent next.
type verdict int

const (
	taken     verdict = iota // 2xx
	refused                  // answered: not these events
	tooLarge                 // answered: not so many of them (413)
	busy                     // answered: not now (408, 429, 503)
	silent                   // the request went out, and no answer came
	unreached                // there was no connection, or nothing that could be sent
	verdicts
)

// reason is why rows are sent now.
type reason int

const (
	fresh  reason = iota // a batch of what was never sent
	again                // a batch that was not taken the first time
	half                 // a part of a batch that was not taken twice
	aside                // a row that was set aside, by itself
	atLast               // a row whose time is over, alone, before it is dropped
	reasons
)

// action is what follows from a POST.
type action int

const (
	remove  action = iota // the rows were taken
	repeat                // all wait a moment; then the same rows are sent again
	shrink                // batches become smaller, and the rows come again in such ones
	split                 // the rows are sent in two halves; a single one is set aside
	putOff                // the row waits longer; the others do not
	drop                  // the row is given up
	waitAll               // all wait, and nothing is held against the rows
)

// actions is the whole rule. A batch may be refused for what is in it, and then
// the others must not wait for that: after the second refusal it is halved, and
// so are its halves, until the one row that is not wanted is alone. It waits by
// itself from then on. An endpoint that refuses three single rows in a row would
// refuse anything, so these wait longer and longer before batches are sent
// again (see plan.alone). Fresh rows do not: if they are not taken either, it is
// for all to wait.
//
// No answer is taken for a refusal: a consumer may hang or die of one event, or
// be too slow for so many. An answer that says "not now" is not: it says nothing
// about the rows.
//
// A row is dropped when its time is over and it was sent alone, whatever came
// of that; of an endpoint that cannot be reached, when its time is over.
var actions = [reasons][verdicts]action{
	fresh:  {taken: remove, refused: repeat, tooLarge: shrink, silent: repeat, busy: waitAll, unreached: waitAll},
	again:  {taken: remove, refused: split, tooLarge: split, silent: split, busy: waitAll, unreached: waitAll},
	half:   {taken: remove, refused: split, tooLarge: split, silent: split, busy: waitAll, unreached: waitAll},
	aside:  {taken: remove, refused: putOff, tooLarge: putOff, silent: putOff, busy: waitAll, unreached: waitAll},
	atLast: {taken: remove, refused: drop, tooLarge: drop, silent: drop, busy: drop, unreached: waitAll},
}

const (
	// aloneInARow is how many rows are refused alone in a row before it is the
	// endpoint that fails.
	aloneInARow = 3
	// share is how long what was not taken may be dealt with before it is the
	// turn of fresh rows.
	share = 10 * time.Second
	// growAfter is how many full batches are taken before larger ones are tried.
	growAfter = 16
)

// batch is rows that are sent together. Its span has no other rows in it.
type batch struct {
	Span
	oldest time.Time // when the oldest event happened
	rows   int       // how many there were
	reason reason

	tries int       // of a row set aside: how often it was not taken since
	due   time.Time // of a row set aside: when it is sent next
}

// plan is what one endpoint is to be sent next. It is kept in memory alone:
// after a restart all rows are fresh again, and what was found out about them
// is found out once more. Its methods touch nothing but the plan.
type plan struct {
	o Options

	next    uint64     // where the rows begin that were never sent
	batches []batch    // again or half, in the order they are sent
	pairs   [][2]batch // halves, sent when batches is empty
	aside   asideHeap
	afresh  bool // batches are to be sent again: the largest next

	alone    int       // single rows not taken in a row, when first sent alone
	failures int       // times of waiting since anything was taken
	untaken  int       // batches that were not, since, and rows for which others waited; for people
	until    time.Time // nothing is sent before
	hold     time.Time // nothing but fresh rows is sent before
	deaf     time.Time // since when no answer has come; zero: the last POST had one

	maxBytes int           // of a batch
	full     int           // how many such batches were taken in a row
	spent    time.Duration // on others since fresh rows were sent
}

func newPlan(o Options) plan { return plan{o: o, maxBytes: o.FlushBytes} }

// choose gives what is to be sent now instead of fresh rows; ok is false when
// it is their turn. Halves come before rows set aside. While the endpoint fails,
// what is over its time comes first, so that the outbox does not fill up.
func (p *plan) choose(now time.Time) (b batch, ok bool) {
	if p.failures > 0 && !p.held(now) && p.bringForward(now) {
		return p.batches[0], true
	}
	if p.spent >= share {
		return batch{}, false
	}
	return p.other(now)
}

// other is choose for when there are no fresh rows to be sent.
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

// nextPair gives the pair to be sent next: the largest while the endpoint takes
// anything, so that most of what it wants is there soon; otherwise the smallest,
// so that there are soon three rows that it refuses alone. After these, the
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

// held reports whether nothing but fresh rows is to be sent.
func (p *plan) held(now time.Time) bool { return p.hold.After(now) }

// bringForward puts a batch with a row that is over its time first.
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

// fresh gives the batch of all that was never sent.
func (p *plan) fresh() batch { return batch{Span: From(p.next), reason: fresh} }

// over reports whether the time of an event is over.
func (p *plan) over(at, now time.Time) bool { return !at.After(now.Add(-p.o.RetryFor)) }

// unreachable reports whether no answer has come for so long that rows expire
// by their age alone. A consumer that is being restarted loses nothing.
func (p *plan) unreachable(now time.Time) bool {
	return !p.deaf.IsZero() && now.Sub(p.deaf) >= p.o.RetryMax
}

// sent is what was sent, and what came of it.
type sent struct {
	batch         // as chosen
	rows    []Row // those of its rows that were sent: the oldest
	verdict verdict
	size    int  // octets of the body
	full    bool // no other row would have had room
	took    time.Duration
}

// outcome is what follows from a POST. pause is how long others wait for it, 0:
// they do not.
type outcome struct {
	action   action
	setAside bool
	pause    time.Duration
}

// learn takes in what came of a POST.
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

// lastChance reports whether a row is sent alone because its time is over. That
// is so only after the endpoint has failed: what waited because the relay was
// down is sent like all others first.
func (p *plan) lastChance(r Row, now time.Time) bool {
	return p.failures > 0 && p.over(r.At, now)
}

// hear takes in what a verdict says about the endpoint, whatever was sent.
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

// leave takes the rows that were sent out of their place.
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

// split puts the halves of what was not taken before all others, or a single
// row aside.
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

// pause sets the end of a time of waiting, which is longer every time.
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

// forgive is for an endpoint that was changed: what it was does not count.
func (p *plan) forgive(now time.Time) {
	p.alone, p.failures, p.untaken = 0, 0, 0
	p.until, p.hold, p.deaf = time.Time{}, time.Time{}, time.Time{}
	for i := range p.aside {
		p.aside[i].due = now
	}
	heap.Init(&p.aside)
}

// see takes in the time of the oldest row of a batch that was chosen, of which
// older ones may be gone since.
func (p *plan) see(b batch, at time.Time) {
	if b.reason == again || b.reason == half {
		p.batches[0].oldest = at
	}
}

// gone takes in that there are no rows within a chosen b any more.
func (p *plan) gone(b batch) {
	if b.reason == aside {
		heap.Pop(&p.aside)
		return
	}
	p.batches = p.batches[1:]
}

// goneTo takes in that the rows up to seq were removed.
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

// idle reports whether no rows are known but fresh ones.
func (p *plan) idle() bool { return len(p.batches)+len(p.pairs)+len(p.aside) == 0 }

// nextOther is when the next is to be sent of what is not fresh; ok is false
// when there is nothing.
func (p *plan) nextOther() (at time.Time, ok bool) {
	if len(p.batches)+len(p.pairs) == 0 && len(p.aside) > 0 {
		at = p.aside[0].due
	}
	if p.hold.After(at) {
		at = p.hold
	}
	return at, !p.idle()
}

// nextTry is when something is sent again after a failure.
func (p *plan) nextTry() time.Time {
	if p.hold.After(p.until) {
		return p.hold
	}
	return p.until
}

// oldest is when the oldest event happened that was sent and is not set aside;
// zero: there is none.
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
