package policy

import (
	"container/list"
	"net/netip"
	"time"
)

// Guard is the mass-violation guard. When many unrelated domains fail their
// demands within minutes, and nearly all that are tried do, the fault is more
// likely ours (a firewall that strips STARTTLS, a wrong clock, no roots) than
// theirs, and no message should be blocked for it.
//
// Names and even domains are cheap, and each sender chooses where it sends to.
// So the guard counts places: networks, each with a registrable domain of its
// own. And where several accounts send, each has one voice: no account alone makes
// the guard active by domains of its own that fail, or inactive by domains of its
// own that do well.
//
// A Guard is not safe for concurrent use. The zero Guard is never active.
type Guard struct {
	domains int
	within  time.Duration

	accounts map[string]*voice
	recent   list.List // of *sighting, the oldest first
	failing  int       // accounts that find nearly every place failing
}

// Sighting is an attempt under a demand.
type Sighting struct {
	Account string
	Domain  string // the registrable part of the recipients' domain, so that one owner counts once
	// Network is that of the host that was tried: its IPv4 address, or the /64 of
	// its IPv6 address. Where it is zero, the domain stands for it.
	Network  netip.Prefix
	Violated bool
	At       time.Time
}

// sighting is the newest attempt of an account at a domain.
type sighting struct {
	Sighting
	inAll, inOwn *list.Element
}

// voice is what one account has seen. Each has one vote, however much it sends.
type voice struct {
	domains map[string]*sighting
	own     list.List // of *sighting, the oldest first
	places  map[place]*seen
	failed  int // places where most domains violated
}

// place is a network; where there is none, it is a domain.
type place struct {
	network netip.Prefix
	domain  string
}

// seen counts the domains of a place.
type seen struct{ violated, all int }

// failed reports whether most domains of the place violated.
func (s *seen) failed() bool { return s != nil && 2*s.violated > s.all }

const (
	// maxSightings and maxOwnSightings bound the memory of a Guard, in all and
	// for each account; the oldest are forgotten first.
	maxSightings    = 1 << 16
	maxOwnSightings = 1 << 11
	// nearlyAll is how many in a hundred count as nearly all.
	nearlyAll = 80
)

// NewGuard makes a guard that is active while at least so many unrelated domains,
// and nearly all of those attempted, violated within that time. With 0 domains it
// is never active.
func NewGuard(domains int, within time.Duration) *Guard {
	return &Guard{domains: domains, within: within, accounts: make(map[string]*voice)}
}

// Attempted tells the guard of an attempt. Of one account at one domain only the
// newest attempt counts.
func (g *Guard) Attempted(s Sighting) {
	if g.domains <= 0 {
		return
	}
	v := g.accounts[s.Account]
	if v != nil {
		if old := v.domains[s.Domain]; old != nil {
			g.forget(old)
		}
		if v.own.Len() >= max(maxOwnSightings, 2*g.domains) {
			g.forget(v.own.Front().Value.(*sighting))
		}
	}
	if g.recent.Len() >= max(maxSightings, 2*g.domains) {
		g.forget(g.recent.Front().Value.(*sighting))
	}
	if v = g.accounts[s.Account]; v == nil {
		v = &voice{domains: make(map[string]*sighting), places: make(map[place]*seen)}
		g.accounts[s.Account] = v
	}
	n := &sighting{Sighting: s}
	n.inAll, n.inOwn = g.recent.PushBack(n), v.own.PushBack(n)
	v.domains[s.Domain] = n
	g.count(v, n, 1)
}

// count adds a sighting to the counts (by 1), or takes it out again (by -1).
func (g *Guard) count(v *voice, s *sighting, by int) {
	if v.failing() {
		g.failing--
	}
	at := s.place()
	p := v.places[at]
	if p == nil {
		p = &seen{}
		v.places[at] = p
	}
	was := p.failed()
	p.all += by
	if s.Violated {
		p.violated += by
	}
	switch now := p.failed(); {
	case now && !was:
		v.failed++
	case was && !now:
		v.failed--
	}
	if p.all == 0 {
		delete(v.places, at)
	}
	if v.failing() {
		g.failing++
	}
}

func (s *sighting) place() place {
	if s.Network.IsValid() {
		return place{network: s.Network}
	}
	return place{domain: s.Domain}
}

// failing reports whether the account finds nearly every place failing.
func (v *voice) failing() bool { return v.failed > 0 && v.failed*100 >= len(v.places)*nearlyAll }

// Active reports whether blocks are to be put off at now.
func (g *Guard) Active(now time.Time) bool {
	if g.domains <= 0 {
		return false
	}
	for e := g.recent.Front(); e != nil && now.Sub(e.Value.(*sighting).At) > g.within; e = g.recent.Front() {
		g.forget(e.Value.(*sighting))
	}
	return agreed(g.failing, len(g.accounts)) && g.unrelated()
}

// agreed reports whether the failing accounts, among all that have sent, point to a
// fault of ours: there are at least two, and nearly all are failing when one account
// is left out. Where only one account sends, it decides alone.
func agreed(failing, accounts int) bool {
	if accounts <= 1 {
		return failing == accounts && accounts > 0
	}
	return failing >= 2 && failing*100 >= (accounts-1)*nearlyAll
}

// unrelated reports whether the failing accounts have seen enough domains fail,
// each in a place of its own.
func (g *Guard) unrelated() bool {
	sum := 0
	for _, v := range g.accounts {
		if v.failing() {
			sum += v.failed
		}
	}
	if sum < g.domains {
		return false
	}
	domains, places := make(map[string]bool, g.domains), make(map[place]bool, g.domains)
	for _, v := range g.accounts {
		if !v.failing() {
			continue
		}
		for e := v.own.Front(); e != nil; e = e.Next() {
			s := e.Value.(*sighting)
			at := s.place()
			if !s.Violated || domains[s.Domain] || places[at] || !v.places[at].failed() {
				continue
			}
			domains[s.Domain], places[at] = true, true
			if len(places) == g.domains {
				return true
			}
		}
	}
	return false
}

// Release forgets everything: an operator says that the fault is not ours.
func (g *Guard) Release() {
	for g.recent.Len() > 0 {
		g.forget(g.recent.Front().Value.(*sighting))
	}
}

func (g *Guard) forget(s *sighting) {
	v := g.accounts[s.Account]
	g.recent.Remove(s.inAll)
	v.own.Remove(s.inOwn)
	delete(v.domains, s.Domain)
	g.count(v, s, -1)
	if len(v.domains) == 0 {
		delete(g.accounts, s.Account)
	}
}
