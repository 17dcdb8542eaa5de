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
		{"laggards have a quarter", use{laggard: 25}, 100, "fep"},
		{"all is taken", use{proven: 90, unknown: 10}, 100, ""},
		{"few slots, all free", use{}, 1, "fepl"},
		{"four slots, one laggard", use{laggard: 1}, 4, "fep"},
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
