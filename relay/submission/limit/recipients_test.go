package limit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestRecipientsSlide(t *testing.T) {
	var r Recipients
	now := time.Unix(1_000_000_000, 0)
	for i, step := range []struct {
		after time.Duration
		n     int
		ok    bool
	}{
		{0, 40, true}, {30 * time.Minute, 60, true}, {time.Second, 1, false}, {29 * time.Minute, 1, false},
		{2 * time.Minute, 41, false}, {0, 40, true}, {28 * time.Minute, 1, false}, {2 * time.Minute, 60, true},
		{48 * time.Hour, 100, true}, {0, 1, false}, {time.Hour + time.Minute, 101, false},
	} {
		now = now.Add(step.after)
		if ok := r.Take("2", step.n, 100, now); ok != step.ok {
			t.Errorf("step %d: %v", i, ok)
		}
	}
	if !r.Take("3", 100, 100, now) || !r.Exhausted("3", 100, now) || r.Exhausted("2", 100, now) || len(r.by) != 1 {
		t.Errorf("%d accounts are remembered", len(r.by))
	}
	r.GiveBack("3", 1, now)
	if !r.Take("3", 1, 100, now) || r.Take("3", 1, 100, now) {
		t.Error("what was given back")
	}
	if !r.Take("3", 1000, 0, now) || r.Exhausted("3", 0, now) {
		t.Error("a bound that is off")
	}
}

// Whatever comes when, no hour has more than is allowed.
func TestRecipientsOfEveryHour(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type one struct {
			at time.Time
			n  int
		}
		var r Recipients
		now := time.Unix(1_000_000_000, 0)
		var taken []one
		for range rapid.IntRange(1, 100).Draw(t, "messages") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "pause")) * time.Second)
			n := rapid.IntRange(1, 60).Draw(t, "n")
			last := 0
			for _, m := range taken {
				if now.Sub(m.at) <= time.Hour {
					last += m.n
				}
			}
			ok := r.Take("2", n, 100, now)
			if ok {
				taken = append(taken, one{now, n})
			}
			if ok && last+n > 100 {
				t.Fatalf("%d in an hour", last+n)
			}
		}
	})
}
