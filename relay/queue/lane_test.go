package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tlsrelay/relay"
)

var testLimits = limits{window: 8, restMin: 30 * time.Second, restMax: 2 * time.Minute}

// Each story is a list of "finish-second[<begin-second]:feedback -> window"
// steps; a step that ends in z rests for so many seconds afterwards.
func TestPaceStories(t *testing.T) {
	for _, c := range []struct{ name, story string }{
		{"unknown", ""},
		{"grows by one on each success, up to the largest", "1 h 6; 2 h 7; 3 h 8; 4 h 8"},
		{"policy refusals say nothing", "1 n 5; 2 h 6; 3 n 6; 4 n 6"},
		{"one cohort that fails is cut once", "10 t 2; 11<9 t 2; 12<9 t 2; 13<10 t 1"},
		{"a success forgives", "10 t 2; 20 t 1; 30 h 2; 40 t 1; 50 t 1"},
		{"dead after three cohorts, rests grow by half to their bound",
			"10 t 2; 20 t 1; 30 t 1 30z; 100 t 1 45z; 200 t 1 67z; 300 t 1 101z; 500 t 1 120z; 900 t 1 120z"},
		{"one good probe ends it", "10 t 2; 20 t 1; 30 t 1 30z; 100 h 2; 101 h 3"},
		{"a neutral probe changes nothing", "10 t 2; 20 t 1; 30 t 1 30z; 100 n 1; 110 t 1 45z"},
		{"late failures of an old cohort do not lengthen a rest", "10 t 2; 20 t 1; 30 t 1 30z; 31<5 t 1 30z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			origin := time.Unix(1_000_000, 0)
			var p pace
			if p.size(testLimits) != firstWindow || p.resting(origin) || p.dead() {
				t.Fatalf("the zero pace: %+v", p)
			}
			feedbacks := map[string]relay.Feedback{"h": relay.Healthy, "t": relay.Trouble, "n": relay.Neutral}
			var rested time.Time
			for step := range strings.SplitSeq(c.story, "; ") {
				var end, begin, window, rest int
				when, f := "", ""
				fmt.Sscanf(step, "%s %s %d %dz", &when, &f, &window, &rest)
				if n, _ := fmt.Sscanf(when, "%d<%d", &end, &begin); n == 1 {
					begin = end - 1
				}
				if step == "" {
					break
				}
				now := origin.Add(time.Duration(end) * time.Second)
				before := p.until
				p = p.learn(feedbacks[f], origin.Add(time.Duration(begin)*time.Second), now, testLimits)
				if got := p.size(testLimits); got != window {
					t.Fatalf("%q: window %d", step, got)
				}
				if rest == 0 {
					if p.resting(now) {
						t.Fatalf("%q: rests until %v", step, p.until)
					}
					continue
				}
				if p.until != before {
					rested = now
				}
				if got := p.until.Sub(rested).Truncate(time.Second); got != time.Duration(rest)*time.Second || !p.resting(p.until.Add(-1)) || p.resting(p.until) {
					t.Fatalf("%q: rests for %v", step, got)
				}
			}
		})
	}
}

func TestStanding(t *testing.T) {
	for _, c := range []struct {
		p    pace
		slow int
		want Standing
	}{
		{pace{}, 0, Unknown},
		{pace{proven: true}, 0, Proven},
		{pace{proven: true}, 1, Laggard},
		{pace{troubles: 1}, 0, Laggard},
		{pace{}, 1, Laggard},
	} {
		if got := c.p.standing(c.slow); got != c.want {
			t.Errorf("%+v, %d slow: %s, want %s", c.p, c.slow, got, c.want)
		}
	}
}

func TestPermits(t *testing.T) {
	for _, c := range []struct {
		name string
		u    use
		n    int
		want string // the first letters of fresh, eager, proven, laggard
	}{
		{"nothing under way", use{}, 100, "fepl"},
		{"half is taken", use{unknown: 50}, 100, "fpl"},
		{"the last tenth is not for the unknown", use{unknown: 90}, 100, "pl"},
		{"nor for those who were", use{unknown: 70, laggard: 20}, 100, "p"},
		{"nor for the proven", use{proven: 90}, 100, "fl"},
		{"where laggards have half", use{proven: 90, laggard: 5}, 100, "f"},
		{"nearly all have become slow", use{laggard: 90}, 100, "fp"},
		{"a few unknown are safe beside them", use{unknown: 4, laggard: 90}, 100, "fp"},
		{"and no more", use{unknown: 5, laggard: 90}, 100, "p"},
		{"all is taken", use{proven: 90, unknown: 10}, 100, ""},
		{"few slots, all free", use{}, 1, "fepl"},
		{"four slots, one laggard", use{laggard: 1}, 4, "fepl"},
		{"four slots, three unknown", use{unknown: 3}, 4, "p"},
		{"four slots, three proven", use{proven: 3}, 4, "f"},
	} {
		got := ""
		for r, letter := range map[rank]string{fresh: "f", eager: "e", proven: "p", laggard: "l"} {
			if c.u.permits(r, c.n) != strings.Contains(c.want, letter) {
				got += letter
			}
		}
		if got != "" {
			t.Errorf("%s (%+v of %d): wrong about %q, want exactly %q", c.name, c.u, c.n, got, c.want)
		}
	}
}

func TestMayHold(t *testing.T) {
	for _, c := range []struct {
		name     string
		own, all use
		n        int
		alone    bool
		want     string // the first letters of fresh, eager, proven, laggard
	}{
		{"nothing in memory", use{}, use{}, 100, false, "fepl"},
		{"proven ones do not count", use{proven: 90}, use{proven: 180}, 100, false, "fepl"},
		{"a third", use{unknown: 30}, use{unknown: 30}, 100, false, "fpl"},
		{"as much as is free", use{unknown: 45}, use{unknown: 45}, 100, false, "p"},
		{"another's as much", use{}, use{unknown: 45}, 100, false, "fepl"},
		{"half of that", use{unknown: 22}, use{unknown: 67}, 100, false, "fpl"},
		{"and no more", use{unknown: 23}, use{unknown: 68}, 100, false, "p"},
		{"laggards have a quarter", use{laggard: 25}, use{laggard: 25}, 100, false, "fep"},
		{"those of others", use{laggard: 3}, use{laggard: 25}, 100, false, "fep"},
		{"a few are safe", use{laggard: 2}, use{laggard: 60}, 100, false, "fepl"},
		{"even where all has become slow", use{unknown: 2}, use{unknown: 2, laggard: 95}, 100, false, "fepl"},
		{"but not to who has them", use{laggard: 90}, use{unknown: 2, laggard: 92}, 100, false, "p"},
		{"alone", use{unknown: 79}, use{unknown: 79}, 100, true, "fpl"},
		{"alone, all but what must stay free", use{unknown: 80}, use{unknown: 80}, 100, true, "p"},
		{"alone, one slot", use{}, use{}, 1, true, "fepl"},
		{"one slot", use{}, use{}, 1, false, "fepl"},
		{"one slot, taken", use{unknown: 1}, use{unknown: 1}, 1, false, "p"},
		{"one slot, taken by another", use{}, use{unknown: 1}, 1, false, "fepl"},
		{"four slots", use{unknown: 1}, use{unknown: 1}, 4, false, "fpl"},
		{"four slots, two", use{unknown: 2}, use{unknown: 2}, 4, false, "p"},
	} {
		got := ""
		for r, letter := range map[rank]string{fresh: "f", eager: "e", proven: "p", laggard: "l"} {
			if c.own.mayHold(c.all, r, c.n, c.alone) != strings.Contains(c.want, letter) {
				got += letter
			}
		}
		if got != "" {
			t.Errorf("%s (%+v of %+v of %d): wrong about %q, want exactly %q", c.name, c.own, c.all, c.n, got, c.want)
		}
	}
	// However it is asked for, it never comes to more than mayHold allows.
	for own := range 45 {
		for others := range 90 - own {
			u, all := use{unknown: own}, use{unknown: own + others}
			if n := u.eagerly(all, 100); n > 1 && !(use{unknown: own + n - 1}).mayHold(use{unknown: own + others + n - 1}, eager, 100, false) {
				t.Errorf("%d at a time to who has %d of %d", n, own, own+others)
			}
		}
	}
}

func TestFIFOKeepsOrder(t *testing.T) {
	var f fifo[int]
	in, out := 0, 0
	for round := range 300 {
		for range round % 7 {
			f.push(in)
			in++
		}
		for range min(f.len(), round%5) {
			if got := f.pop(); got != out {
				t.Fatalf("got %d, want %d", got, out)
			}
			out++
		}
	}
	for f.len() > 0 {
		if got := f.pop(); got != out {
			t.Fatalf("got %d, want %d", got, out)
		}
		out++
	}
	if out != in {
		t.Fatalf("%d in, %d out", in, out)
	}
}

func TestAlarmsFireInOrder(t *testing.T) {
	var h alarms
	origin := time.Unix(0, 0)
	as := make([]alarm, 20)
	for i := range as {
		h.set(&as[i], origin.Add(time.Duration((i*7)%20)*time.Second))
	}
	h.off(&as[3])
	h.off(&as[3])
	h.set(&as[0], origin.Add(time.Hour))
	last, n := origin, 0
	for a, ok := h.due(origin.Add(time.Minute)); ok; a, ok = h.due(origin.Add(time.Minute)) {
		if a.at.Before(last) || a == &as[3] || a == &as[0] || a.index != 0 {
			t.Fatalf("alarm at %v after %v", a.at, last)
		}
		last, n = a.at, n+1
	}
	if n != 18 || len(h) != 1 {
		t.Errorf("%d fired, %d left", n, len(h))
	}
}
