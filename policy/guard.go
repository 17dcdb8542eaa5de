package policy

import (
	"container/list"
	"time"
)

// Guard is the mass-violation guard (tls-policy §3.1). When many unrelated
// domains fail their demands within minutes, and nearly all that are tried
// do, the fault is more likely ours (a firewall that strips STARTTLS, a wrong
// clock, no roots) than theirs, and nothing should be dropped for it.
//
// A Guard is not safe for concurrent use. The zero Guard never holds.
type Guard struct {
	domains int
	within  time.Duration

	byName   map[string]*list.Element
	recent   list.List // of *sighting, the longest unseen first
	violated int       // sightings that violated
}

// sighting is the newest attempt at one domain.
type sighting struct {
	domain   string
	violated bool
	at       time.Time
}

// maxSightings bounds the memory of a Guard, for domains are made up by
// strangers; the longest unseen are forgotten first.
const maxSightings = 1 << 16

// NewGuard makes a guard that holds while at least so many distinct domains,
// and at least 80 % of those attempted, violated within that time. No domains
// make a guard that never holds.
func NewGuard(domains int, within time.Duration) *Guard {
	return &Guard{domains: domains, within: within, byName: make(map[string]*list.Element)}
}

// Attempted tells of an attempt, under a demand, at a domain. What counts for
// a domain is its newest attempt.
func (g *Guard) Attempted(domain string, violated bool, now time.Time) {
	if g.domains <= 0 {
		return
	}
	if e, ok := g.byName[domain]; ok {
		g.forget(e)
	}
	g.byName[domain] = g.recent.PushBack(&sighting{domain, violated, now})
	if violated {
		g.violated++
	}
	for len(g.byName) > maxSightings {
		g.forget(g.recent.Front())
	}
}

// Holds reports whether drops are to be put off at now.
func (g *Guard) Holds(now time.Time) bool {
	if g.domains <= 0 {
		return false
	}
	for e := g.recent.Front(); e != nil && now.Sub(e.Value.(*sighting).at) > g.within; e = g.recent.Front() {
		g.forget(e)
	}
	return g.violated >= g.domains && g.violated*100 >= len(g.byName)*80
}

// Release forgets everything: an operator's word that the fault is not ours.
func (g *Guard) Release() {
	for g.recent.Len() > 0 {
		g.forget(g.recent.Front())
	}
}

func (g *Guard) forget(e *list.Element) {
	s := g.recent.Remove(e).(*sighting)
	delete(g.byName, s.domain)
	if s.violated {
		g.violated--
	}
}
