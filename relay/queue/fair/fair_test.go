package fair

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tlsrelay/relay"
)

var testLimits = Limits{Window: 8, MinCoolOff: 30 * time.Second, MaxCoolOff: 2 * time.Minute}

// Each story is a list of "finish-second[<begin-second]:feedback -> window"
// steps; a step that ends in z cools off for so many seconds afterwards.
func TestWindowStories(t *testing.T) {
	for _, c := range []struct{ name, story string }{
		{"nothing known", ""},
		{"grows by one on each success, up to the largest", "1 h 6; 2 h 7; 3 h 8; 4 h 8"},
		{"policy refusals say nothing", "1 n 5; 2 h 6; 3 n 6; 4 n 6"},
		{"one cohort that fails is cut once", "10 t 2; 11<9 t 2; 12<9 t 2; 13<10 t 1"},
		{"a success forgives", "10 t 2; 20 t 1; 30 h 2; 40 t 1; 50 t 1"},
		{"dead after three cohorts, cool-offs grow by half to their bound",
			"10 t 2; 20 t 1; 30 t 1 30z; 100 t 1 45z; 200 t 1 67z; 300 t 1 101z; 500 t 1 120z; 900 t 1 120z"},
		{"one good probe ends it", "10 t 2; 20 t 1; 30 t 1 30z; 100 h 2; 101 h 3"},
		{"a neutral probe changes nothing", "10 t 2; 20 t 1; 30 t 1 30z; 100 n 1; 110 t 1 45z"},
		{"late failures of an old cohort do not lengthen a cool-off", "10 t 2; 20 t 1; 30 t 1 30z; 31<5 t 1 30z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			origin := time.Unix(1_000_000, 0)
			var w Window
			if w.Size(testLimits) != FirstWindow || w.CoolingOff(origin) || w.Dead() {
				t.Fatalf("the zero window: %+v", w)
			}
			feedbacks := map[string]relay.Feedback{"h": relay.Healthy, "t": relay.Trouble, "n": relay.Neutral}
			var began time.Time
			for step := range strings.SplitSeq(c.story, "; ") {
				var end, begin, window, coolOff int
				when, f := "", ""
				fmt.Sscanf(step, "%s %s %d %dz", &when, &f, &window, &coolOff)
				if n, _ := fmt.Sscanf(when, "%d<%d", &end, &begin); n == 1 {
					begin = end - 1
				}
				if step == "" {
					break
				}
				now := origin.Add(time.Duration(end) * time.Second)
				before := w.coolUntil
				w = w.Learn(feedbacks[f], origin.Add(time.Duration(begin)*time.Second), now, testLimits)
				if got := w.Size(testLimits); got != window {
					t.Fatalf("%q: window %d", step, got)
				}
				if coolOff == 0 {
					if w.CoolingOff(now) {
						t.Fatalf("%q: cools off until %v", step, w.coolUntil)
					}
					continue
				}
				if w.coolUntil != before {
					began = now
				}
				if got := w.coolUntil.Sub(began).Truncate(time.Second); got != time.Duration(coolOff)*time.Second || !w.CoolingOff(w.coolUntil.Add(-1)) || w.CoolingOff(w.coolUntil) {
					t.Fatalf("%q: cools off for %v", step, got)
				}
			}
		})
	}
}

func TestStanding(t *testing.T) {
	for _, c := range []struct {
		w    Window
		slow int
		want Standing
	}{
		{Window{}, 0, Unproven},
		{Window{healthy: true}, 0, Healthy},
		{Window{healthy: true}, 1, Slow},
		{Window{failures: 1}, 0, Slow},
		{Window{}, 1, Slow},
	} {
		if got := c.w.Standing(c.slow); got != c.want {
			t.Errorf("%+v, %d slow: %s, want %s", c.w, c.slow, got, c.want)
		}
	}
}

func TestFreeFor(t *testing.T) {
	for _, c := range []struct {
		name string
		u    Slots
		n    int
		want string // the first letters of new, eager, healthy, slow
	}{
		{"nothing under way", Slots{}, 100, "nehs"},
		{"half is taken", Slots{Unproven: 50}, 100, "nhs"},
		{"the last tenth is not for the unproven", Slots{Unproven: 90}, 100, "hs"},
		{"nor for those that have become slow", Slots{Unproven: 70, Slow: 20}, 100, "h"},
		{"nor for the healthy", Slots{Healthy: 90}, 100, "ns"},
		{"where slow ones have half", Slots{Healthy: 90, Slow: 5}, 100, "n"},
		{"nearly all have become slow", Slots{Slow: 90}, 100, "nh"},
		{"a few unproven are safe beside them", Slots{Unproven: 4, Slow: 90}, 100, "nh"},
		{"and no more", Slots{Unproven: 5, Slow: 90}, 100, "h"},
		{"all is taken", Slots{Healthy: 90, Unproven: 10}, 100, ""},
		{"few slots, all free", Slots{}, 1, "nehs"},
		{"four slots, one slow", Slots{Slow: 1}, 4, "nehs"},
		{"four slots, three unproven", Slots{Unproven: 3}, 4, "h"},
		{"four slots, three healthy", Slots{Healthy: 3}, 4, "n"},
	} {
		got := ""
		for r, letter := range map[Rank]string{RankNew: "n", RankEager: "e", RankHealthy: "h", RankSlow: "s"} {
			if c.u.FreeFor(r, c.n) != strings.Contains(c.want, letter) {
				got += letter
			}
		}
		if got != "" {
			t.Errorf("%s (%+v of %d): wrong about %q, want exactly %q", c.name, c.u, c.n, got, c.want)
		}
	}
}

func TestUnderQuota(t *testing.T) {
	for _, c := range []struct {
		name     string
		own, all Slots
		n        int
		alone    bool
		want     string // the first letters of new, eager, healthy, slow
	}{
		{"nothing in memory", Slots{}, Slots{}, 100, false, "nehs"},
		{"healthy ones do not count", Slots{Healthy: 90}, Slots{Healthy: 180}, 100, false, "nehs"},
		{"a third", Slots{Unproven: 30}, Slots{Unproven: 30}, 100, false, "nhs"},
		{"as much as is free", Slots{Unproven: 45}, Slots{Unproven: 45}, 100, false, "h"},
		{"another's as much", Slots{}, Slots{Unproven: 45}, 100, false, "nehs"},
		{"half of that", Slots{Unproven: 22}, Slots{Unproven: 67}, 100, false, "nhs"},
		{"and no more", Slots{Unproven: 23}, Slots{Unproven: 68}, 100, false, "h"},
		{"slow ones have a quarter", Slots{Slow: 25}, Slots{Slow: 25}, 100, false, "neh"},
		{"those of others", Slots{Slow: 3}, Slots{Slow: 25}, 100, false, "neh"},
		{"a few are safe", Slots{Slow: 2}, Slots{Slow: 60}, 100, false, "nehs"},
		{"even where all has become slow", Slots{Unproven: 2}, Slots{Unproven: 2, Slow: 95}, 100, false, "nehs"},
		{"but not for who has them", Slots{Slow: 90}, Slots{Unproven: 2, Slow: 92}, 100, false, "h"},
		{"alone", Slots{Unproven: 79}, Slots{Unproven: 79}, 100, true, "nhs"},
		{"alone, all but what must stay free", Slots{Unproven: 80}, Slots{Unproven: 80}, 100, true, "h"},
		{"alone, one slot", Slots{}, Slots{}, 1, true, "nehs"},
		{"one slot", Slots{}, Slots{}, 1, false, "nehs"},
		{"one slot, taken", Slots{Unproven: 1}, Slots{Unproven: 1}, 1, false, "h"},
		{"one slot, taken by another", Slots{}, Slots{Unproven: 1}, 1, false, "nehs"},
		{"four slots", Slots{Unproven: 1}, Slots{Unproven: 1}, 4, false, "nhs"},
		{"four slots, two", Slots{Unproven: 2}, Slots{Unproven: 2}, 4, false, "h"},
	} {
		got := ""
		for r, letter := range map[Rank]string{RankNew: "n", RankEager: "e", RankHealthy: "h", RankSlow: "s"} {
			if c.own.UnderQuota(c.all, r, c.n, c.alone) != strings.Contains(c.want, letter) {
				got += letter
			}
		}
		if got != "" {
			t.Errorf("%s (%+v of %+v of %d): wrong about %q, want exactly %q", c.name, c.own, c.all, c.n, got, c.want)
		}
	}
	// However it is asked for, it never comes to more than UnderQuota allows.
	for own := range 45 {
		for others := range 90 - own {
			u, all := Slots{Unproven: own}, Slots{Unproven: own + others}
			if n := u.Batch(all, 100); n > 1 && !(Slots{Unproven: own + n - 1}).UnderQuota(Slots{Unproven: own + others + n - 1}, RankEager, 100, false) {
				t.Errorf("%d at a time to who has %d of %d", n, own, own+others)
			}
		}
	}
}

func TestFIFOKeepsOrder(t *testing.T) {
	var f FIFO[int]
	in, out := 0, 0
	for round := range 300 {
		for range round % 7 {
			f.Push(in)
			in++
		}
		for range min(f.Len(), round%5) {
			if got := f.Pop(); got != out {
				t.Fatalf("got %d, want %d", got, out)
			}
			out++
		}
	}
	for f.Len() > 0 {
		if got := f.Pop(); got != out {
			t.Fatalf("got %d, want %d", got, out)
		}
		out++
	}
	if out != in {
		t.Fatalf("%d in, %d out", in, out)
	}
}

// Owners take turns, and the items of each keep their order.
func TestTurns(t *testing.T) {
	var turns Turns[string, string]
	for _, x := range []string{"a1", "a2", "a3", "b1", "c1", "b2"} {
		turns.Push(x[:1], x)
	}
	got := ""
	for turns.Len() > 0 {
		x, _ := turns.Pop()
		if got += x + " "; x == "b1" {
			turns.Push("d", "d1")
		}
	}
	if want := "a1 b1 c1 a2 b2 d1 a3 "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if x, ok := turns.Pop(); ok {
		t.Errorf("%q out of nothing", x)
	}
}

// Ranks take turns, and one for which no slot is free lets the others go on.
func TestRanksTakeTurns(t *testing.T) {
	var fifo RankedFIFO[string]
	var turns RankedTurns[string, string]
	for _, x := range []string{"n1", "n2", "h1", "h2", "s1"} {
		r := map[byte]Rank{'n': RankNew, 'h': RankHealthy, 's': RankSlow}[x[0]]
		var in RankSet
		fifo.Push(x, r, &in)
		fifo.Push(x, r, &in) // once only
		turns.Push(r, "one", x)
	}
	free := func(r Rank) bool { return r != RankSlow }
	fits := func(x string, _ Rank) bool { return x != "h1" }
	var fromFIFO, fromTurns string
	for x, ok := fifo.Pop(free, fits); ok; x, ok = fifo.Pop(free, fits) {
		fromFIFO += x + " "
	}
	for x, _, ok := turns.Pop(free); ok; x, _, ok = turns.Pop(free) {
		fromTurns += x + " "
	}
	if fromFIFO != "h2 n1 n2 " || fromTurns != "h1 n1 h2 n2 " {
		t.Errorf("got %sand %s", fromFIFO, fromTurns)
	}
}
