package policy

import (
	"fmt"
	"testing"
	"time"
)

func TestGuard(t *testing.T) {
	at := func(minutes float64) time.Time { return start.Add(time.Duration(minutes * float64(time.Minute))) }
	fail := func(g *Guard, prefix string, n int, violated bool, now time.Time) {
		for i := range n {
			g.Attempted(fmt.Sprint(prefix, i), violated, now)
		}
	}
	for _, c := range []struct {
		name  string
		story func(g *Guard)
		at    float64
		want  bool
	}{
		{"nothing seen", func(*Guard) {}, 0, false},
		{"too few domains", func(g *Guard) { fail(g, "v", 19, true, at(0)) }, 0, false},
		{"enough", func(g *Guard) { fail(g, "v", 20, true, at(0)) }, 0, true},
		{"one domain, however often", func(g *Guard) {
			for range 100 {
				g.Attempted("v", true, at(0))
			}
		}, 0, false},
		{"four of five", func(g *Guard) { fail(g, "v", 20, true, at(0)); fail(g, "k", 5, false, at(1)) }, 1, true},
		{"less than four of five", func(g *Guard) { fail(g, "v", 20, true, at(0)); fail(g, "k", 6, false, at(1)) }, 1, false},
		{"still within", func(g *Guard) { fail(g, "v", 20, true, at(0)) }, 10, true},
		{"over", func(g *Guard) { fail(g, "v", 20, true, at(0)) }, 10.1, false},
		{"slowly", func(g *Guard) {
			for i := range 40 {
				g.Attempted(fmt.Sprint(i), true, at(float64(i)))
			}
		}, 40, false},
		{"recovered domains count as they are now", func(g *Guard) {
			fail(g, "v", 25, true, at(0))
			fail(g, "v", 6, false, at(1))
		}, 1, false},
		{"old successes count no more", func(g *Guard) {
			fail(g, "k", 100, false, at(0))
			fail(g, "v", 20, true, at(11))
		}, 11, true},
		{"released by hand", func(g *Guard) { fail(g, "v", 20, true, at(0)); g.Release() }, 0, false},
		{"bounded memory", func(g *Guard) {
			fail(g, "v", 20, true, at(0))
			fail(g, "k", maxSightings+20, false, at(0))
			if len(g.byName) != maxSightings || g.recent.Len() != maxSightings || g.violated != 0 {
				panic("the guard remembers too much")
			}
		}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGuard(20, 10*time.Minute)
			c.story(g)
			if got := g.Holds(at(c.at)); got != c.want {
				t.Errorf("holds: %t", got)
			}
		})
	}
	var zero Guard
	fail(&zero, "v", 100, true, at(0))
	if zero.Holds(at(0)) {
		t.Error("the zero guard holds")
	}
}
