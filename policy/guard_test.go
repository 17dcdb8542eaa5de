package policy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// crowd is many domains of one account, attempted at one time.
type crowd struct {
	who      string
	prefix   string // of the domains' names
	n        int
	violated bool
	networks int     // that they are spread over; 0: none is known
	at       float64 // minutes
}

func (c crowd) attempt(g *Guard) {
	for i := range c.n {
		s := Sighting{
			Account: c.who, Domain: fmt.Sprint(c.prefix, i), Violated: c.violated,
			At: start.Add(time.Duration(c.at * float64(time.Minute))),
		}
		if c.networks > 0 {
			at := i % c.networks
			s.Network = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, c.prefix[0], byte(at >> 8), byte(at)}), 32)
		}
		g.Attempted(s)
	}
}

func TestGuard(t *testing.T) {
	const bad, good = true, false
	one := func(prefix string, n int, violated bool, at float64) crowd {
		return crowd{"a", prefix, n, violated, 0, at}
	}
	var slowly []crowd
	for i := range 40 {
		slowly = append(slowly, one(fmt.Sprint("v", i, "."), 1, bad, float64(i)))
	}
	for _, c := range []struct {
		name  string
		story []crowd
		at    float64
		want  bool
	}{
		{"nothing seen", nil, 0, false},

		// An account that sends alone.
		{"too few domains", []crowd{one("v", 19, bad, 0)}, 0, false},
		{"enough", []crowd{one("v", 20, bad, 0)}, 0, true},
		{"one domain, however often", []crowd{one("v", 1, bad, 0), one("v", 1, bad, 0), one("v", 1, bad, 0)}, 0, false},
		{"four of five", []crowd{one("v", 20, bad, 0), one("k", 5, good, 1)}, 1, true},
		{"less than four of five", []crowd{one("v", 20, bad, 0), one("k", 6, good, 1)}, 1, false},
		{"still within", []crowd{one("v", 20, bad, 0)}, 10, true},
		{"over", []crowd{one("v", 20, bad, 0)}, 10.1, false},
		{"slowly", slowly, 40, false},
		{"recovered domains count as they are now", []crowd{one("v", 25, bad, 0), one("v", 6, good, 1)}, 1, false},
		{"old successes count no more", []crowd{one("k", 100, good, 0), one("v", 20, bad, 11)}, 11, true},
		{"many domains in too few places", []crowd{{"a", "v", 500, bad, 19, 0}}, 0, false},
		{"many domains in enough places", []crowd{{"a", "v", 500, bad, 20, 0}}, 0, true},
		{"many good domains in one place", []crowd{{"a", "v", 20, bad, 20, 0}, {"a", "k", 500, good, 1, 0}}, 0, true},
		{"one bad domain in a place full of good ones", []crowd{
			{"a", "v", 20, bad, 20, 0}, {"a", "k", 500, good, 5, 0}, {"a", "k", 1, bad, 5, 0},
		}, 0, true},
		{"as many good places", []crowd{{"a", "v", 20, bad, 20, 0}, {"a", "k", 500, good, 500, 0}}, 0, false},

		// One account sets it off for nobody.
		{"one account's own domains", []crowd{{"a", "v", 500, bad, 500, 0}, {"b", "k", 1, good, 1, 0}}, 0, false},
		{"beside a failure that is usual", []crowd{
			{"a", "v", 500, bad, 500, 0}, {"b", "k", 10, good, 10, 0}, {"b", "w", 1, bad, 1, 0},
		}, 0, false},
		{"the others send all the while", []crowd{
			{"a", "v", 500, bad, 500, 0}, {"b", "w", 1, bad, 1, 0}, {"c", "k", 3, good, 3, 0}, {"d", "l", 3, good, 3, 0},
		}, 0, false},
		{"the same few places from two accounts", []crowd{{"a", "v", 500, bad, 19, 0}, {"b", "v", 500, bad, 19, 0}}, 0, false},
		{"the same few domains in places of two accounts' making", []crowd{{"a", "v", 19, bad, 19, 0}, {"b", "v", 19, bad, 0, 0}}, 0, false},

		// A fault of ours shows to all.
		{"two accounts", []crowd{{"a", "v", 15, bad, 15, 0}, {"b", "w", 5, bad, 5, 0}}, 0, true},
		{"two accounts, too few in all", []crowd{{"a", "v", 14, bad, 14, 0}, {"b", "w", 5, bad, 5, 0}}, 0, false},
		{"one big and one small", []crowd{{"a", "v", 500, bad, 500, 0}, {"b", "w", 1, bad, 1, 0}}, 0, true},
		{"ten accounts, two domains each", []crowd{
			{"a", "a", 2, bad, 2, 0}, {"b", "b", 2, bad, 2, 0}, {"c", "c", 2, bad, 2, 0}, {"d", "d", 2, bad, 2, 0}, {"e", "e", 2, bad, 2, 0},
			{"f", "f", 2, bad, 2, 0}, {"g", "g", 2, bad, 2, 0}, {"h", "h", 2, bad, 2, 0}, {"i", "i", 2, bad, 2, 0}, {"j", "j", 2, bad, 2, 0},
		}, 0, true},

		// One account disarms it for nobody.
		{"a third account's flood of good domains", []crowd{
			{"a", "v", 15, bad, 15, 0}, {"b", "w", 15, bad, 15, 0}, {"c", "k", 2000, good, 2000, 0},
		}, 0, true},
		{"a flood that fills the memory", []crowd{
			{"a", "v", 15, bad, 15, 0}, {"b", "w", 15, bad, 15, 0}, {"c", "k", maxSightings + 1, good, 0, 0},
		}, 0, true},
		{"two of four find all well", []crowd{
			{"a", "v", 15, bad, 15, 0}, {"b", "w", 15, bad, 15, 0}, {"c", "k", 5, good, 5, 0}, {"d", "l", 5, good, 5, 0},
		}, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGuard(20, 10*time.Minute)
			for _, s := range c.story {
				s.attempt(g)
			}
			if got := g.Active(start.Add(time.Duration(c.at * float64(time.Minute)))); got != c.want {
				t.Errorf("active: %t", got)
			}
			g.Release()
			if g.Active(start) || g.recent.Len() != 0 || len(g.accounts) != 0 || g.failing != 0 {
				t.Error("a released guard remembers")
			}
		})
	}
	var zero Guard
	one("v", 100, bad, 0).attempt(&zero)
	if zero.Active(start) {
		t.Error("the zero guard is active")
	}
}

// Domains and accounts are made up by strangers: what they make the guard
// remember has a bound, and its books agree with what it remembers.
func TestGuardIsBounded(t *testing.T) {
	g := NewGuard(20, 10*time.Minute)
	for i := range 100 {
		crowd{fmt.Sprint("account", i), "v", maxOwnSightings + 10, i%2 == 0, 300, 0}.attempt(g)
	}
	if n := g.recent.Len(); n != maxSightings {
		t.Errorf("%d sightings", n)
	}
	failing, n := 0, 0
	for who, v := range g.accounts {
		if len(v.domains) != v.own.Len() || v.own.Len() > maxOwnSightings || len(v.places) > 300 {
			t.Errorf("%s: %d domains, %d in turn, %d places", who, len(v.domains), v.own.Len(), len(v.places))
		}
		if n += v.own.Len(); v.failing() {
			failing++
		}
	}
	if n != maxSightings || failing != g.failing {
		t.Errorf("%d sightings of accounts, %d failing, booked as %d", n, failing, g.failing)
	}
	if g.Active(start.Add(time.Hour)); g.recent.Len() != 0 || len(g.accounts) != 0 || g.failing != 0 {
		t.Error("an hour later it remembers")
	}
}

func TestAgreed(t *testing.T) {
	for _, c := range []struct {
		failing, accounts int
		want              bool
	}{
		{0, 0, false}, {0, 1, false}, {1, 1, true}, {1, 2, false}, {2, 2, true}, {1, 3, false}, {2, 3, true},
		{2, 4, false}, {3, 4, true}, {3, 5, false}, {4, 5, true}, {4, 6, true}, {8, 11, true}, {7, 11, false}, {80, 101, true}, {79, 101, false},
	} {
		if got := agreed(c.failing, c.accounts); got != c.want {
			t.Errorf("%d of %d: %t", c.failing, c.accounts, got)
		}
	}
}
