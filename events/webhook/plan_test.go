package webhook

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// bench drives a plan by hand: rows 1, 2, 3, … of one endpoint, of which some
// have left the outbox.
type bench struct {
	plan
	rows []Row
	now  time.Time
}

func newBench(n int, o Options) *bench {
	b := &bench{plan: newPlan(o.withDefaults()), now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for i := range n {
		b.rows = append(b.rows, Row{Seq: uint64(i + 1), At: b.now})
	}
	return b
}

func (b *bench) within(s Span) (rows []Row) {
	for _, r := range b.rows {
		if s.First <= r.Seq && r.Seq <= s.Last {
			rows = append(rows, r)
		}
	}
	return rows
}

// pick gives what is sent next, as loop.turn does; ok is false when there is
// nothing before some time has passed.
func (b *bench) pick() (s sent, ok bool) {
	if b.until.After(b.now) {
		return s, false
	}
	s.batch, ok = b.choose(b.now)
	if !ok {
		s.batch = b.plan.fresh()
		if ok = len(b.within(s.Span)) > 0; !ok {
			s.batch, ok = b.other(b.now)
		}
	}
	s.rows = b.within(s.Span)
	return s, ok
}

// tell says what came of it.
func (b *bench) tell(s sent, v verdict) outcome {
	s.verdict, s.size, s.took = v, 100*len(s.rows), time.Millisecond
	o := b.learn(s, b.now)
	if o.action == remove || o.action == drop {
		b.rows = slices.DeleteFunc(b.rows, func(r Row) bool { return slices.ContainsFunc(s.rows, func(x Row) bool { return x.Seq == r.Seq }) })
	}
	return o
}

// The way of eight events, as it is sent: a span and its verdict, and how long
// all wait after it.
func TestPlan(t *testing.T) {
	words := map[verdict]string{taken: "taken", refused: "refused", tooLarge: "too large", busy: "busy", silent: "silent", unreached: "unreached"}
	for _, c := range []struct {
		name    string
		verdict func(n int, s sent) verdict // of post n
		want    string
	}{
		{"taken", func(int, sent) verdict { return taken }, "1-8 taken"},
		{"refused once", func(n int, _ sent) verdict {
			if n == 1 {
				return refused
			}
			return taken
		}, "1-8 refused +2s, 1-8 taken"},
		{"five is refused", poisoned(refused, 5),
			"1-8 refused +2s, 1-8 refused, 1-4 taken, 5-8 refused, 5-6 refused, 7-8 taken, 5 refused, 6 taken"},
		{"two hangs", poisoned(silent, 2),
			"1-8 silent +2s, 1-8 silent +4s, 1-4 silent +8s, 5-8 taken, 1-2 silent +2s, 3-4 taken, 1 taken, 2 silent +2s"},
		{"all are refused", func(int, sent) verdict { return refused },
			"1-8 refused +2s, 1-8 refused, 1-4 refused, 5-8 refused, 5-6 refused, 7-8 refused, 7 refused, 8 refused, 5 refused +4s, " +
				"6 refused, 1-2 refused"},
		{"not now", func(n int, _ sent) verdict {
			if n < 4 {
				return busy
			}
			return taken
		}, "1-8 busy +2s, 1-8 busy +4s, 1-8 busy +8s, 1-8 taken"},
		{"out of reach", func(n int, _ sent) verdict {
			if n < 3 {
				return unreached
			}
			return taken
		}, "1-8 unreached +2s, 1-8 unreached +4s, 1-8 taken"},
		{"refused, then not now", func(n int, _ sent) verdict { return []verdict{refused, busy, refused, taken, taken}[n-1] },
			"1-8 refused +2s, 1-8 busy +4s, 1-8 refused, 1-4 taken, 5-8 taken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(8, Options{})
			var got []string
			for n := 1; n <= 11; n++ {
				s, ok := b.pick()
				if !ok {
					if b.now = b.nextTry(); len(b.batches)+len(b.pairs) == 0 && len(b.within(From(b.next))) == 0 {
						break // what is set aside is another story
					}
					s, ok = b.pick()
				}
				if !ok || s.reason == aside {
					break
				}
				v := c.verdict(n, s)
				line := fmt.Sprint(s.rows[0].Seq)
				if last := s.rows[len(s.rows)-1].Seq; last != s.rows[0].Seq {
					line += fmt.Sprint("-", last)
				}
				line += " " + words[v]
				if o := b.tell(s, v); o.pause > 0 {
					line += " +" + o.pause.String()
				}
				got = append(got, line)
			}
			if text := strings.Join(got, ", "); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}

// poisoned gives v for whatever has row seq in it.
func poisoned(v verdict, seq uint64) func(int, sent) verdict {
	return func(_ int, s sent) verdict {
		if s.rows[0].Seq <= seq && seq <= s.rows[len(s.rows)-1].Seq {
			return v
		}
		return taken
	}
}

// Whatever comes of the posts, every row is in one place of the plan until it
// is taken, or was sent alone when its time was over.
func TestPlanKeepsEveryRow(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 0))
		b := newBench(1+r.IntN(60), Options{RetryFor: time.Hour})
		good := r.Float64()
		for step := range 2000 {
			if len(b.rows) == 0 {
				break
			}
			s, ok := b.pick()
			if !ok {
				b.now = b.now.Add(time.Duration(r.IntN(60_000)) * time.Millisecond)
				continue
			}
			if len(s.rows) == 0 {
				t.Fatalf("seed %d, step %d: %+v has no rows", seed, step, s.batch)
			}
			if keep := 1 + r.IntN(len(s.rows)); r.IntN(4) == 0 {
				s.rows = s.rows[:keep] // as many as a batch holds now
			}
			v := verdict(r.IntN(int(verdicts)))
			if r.Float64() < good {
				v = taken
			}
			o := b.tell(s, v)
			if o.action == drop && (len(s.rows) != 1 || b.now.Sub(s.rows[0].At) < time.Hour || v == unreached) {
				t.Fatalf("seed %d, step %d: %v dropped after %v", seed, step, s.rows, v)
			}
			if step%50 == 49 && r.IntN(10) == 0 {
				b.forgive(b.now)
			}
			b.check(t, seed, step)
		}
	}
}

// check finds every row that is left in one place, and no row in two.
func (b *bench) check(t *testing.T, seed uint64, step int) {
	t.Helper()
	all := slices.Concat(b.batches, b.plan.aside, []batch{b.plan.fresh()})
	for _, pair := range b.pairs {
		all = append(all, pair[:]...)
	}
	for _, r := range b.rows {
		n := 0
		for _, s := range all {
			if s.First <= r.Seq && r.Seq <= s.Last {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("seed %d, step %d: row %d is in %d places", seed, step, r.Seq, n)
		}
	}
	if b.maxBytes < 1 || b.maxBytes > b.o.FlushBytes {
		t.Fatalf("seed %d, step %d: batches of %d octets", seed, step, b.maxBytes)
	}
}

// Batches become smaller for a consumer that finds them too large, and larger
// again.
func TestSizeOfBatches(t *testing.T) {
	b := newBench(0, Options{FlushBytes: 8000})
	send := func(v verdict, rows, size int) {
		b.learn(sent{batch: b.plan.fresh(), rows: make([]Row, rows), verdict: v, size: size, full: true}, b.now)
	}
	want := func(n int) {
		t.Helper()
		if b.maxBytes != n {
			t.Errorf("batches of %d octets, want %d", b.maxBytes, n)
		}
	}
	send(tooLarge, 10, 8000)
	want(4000)
	send(tooLarge, 10, 4000)
	want(2000)
	send(tooLarge, 1, 1900) // one row says nothing about batches
	want(2000)
	for range growAfter {
		want(2000)
		send(taken, 10, 2000)
	}
	want(4000)
	for range 3 * growAfter {
		send(taken, 10, 4000)
	}
	want(8000)
	send(tooLarge, 2, 1)
	want(1)
}

func TestGoneTo(t *testing.T) {
	b := newBench(40, Options{})
	for range 14 { // into halves and rows set aside
		if s, ok := b.pick(); ok {
			b.tell(s, refused)
		} else {
			b.now = b.nextTry()
		}
	}
	if len(b.plan.aside) == 0 || len(b.pairs) == 0 {
		t.Fatalf("%d aside, %d pairs", len(b.plan.aside), len(b.pairs))
	}
	b.goneTo(35)
	b.rows = b.within(From(36))
	b.check(t, 0, 0)
	b.goneTo(40)
	if !b.idle() || b.next != 41 {
		t.Errorf("left: %+v", b.plan)
	}
}
