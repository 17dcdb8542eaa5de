package queue

import (
	"time"

	"tlsrelay/relay"
)

// site is a host or an address that had all the connections it may have when an
// attempt came there. Lanes that go there no longer take a slot each to wait for
// one of them: they take turns, one for each attempt there that ends, and one now
// and then, for a connection may be given up without an attempt.
type site struct {
	name  string
	turns turns
	tick  alarm
	pause time.Duration // between ticks
	gone  bool          // nobody waits there any more
}

const (
	// siteTick is how often somebody tries a site though no attempt there has
	// ended; where that goes on, the pauses grow up to siteTickMax. sitePart is how
	// many of those that wait make it one more.
	siteTick    = time.Second
	siteTickMax = 10 * time.Second
	sitePart    = 1000
	// patience is how long an attempt keeps its slot to wait for a connection.
	patience = time.Second
)

// crowded reports whether the lane waits at a site.
func (l *lane) crowded() bool { return l.site != nil && !l.site.gone }

// crowd has a lane wait at a site.
func (s *scheduler) crowd(l *lane, name string, now time.Time) {
	at, ok := s.sites[name]
	if !ok {
		at = &site{name: name, pause: siteTick}
		at.tick.fire = func(now time.Time) { s.tick(at, now) }
		s.sites[name] = at
		s.alarms.set(&at.tick, now.Add(siteTick))
	}
	l.site = at
	s.q.metrics.crowded.Inc()
	s.giveBack(s.unhold(l))
	for l.stalled.len() > 0 {
		b := l.stalled.pop()
		s.leave(b)
		s.stall(b)
	}
}

// tick lets those go on who would wait for ever if nothing happened, or ends the
// site.
func (s *scheduler) tick(at *site, now time.Time) {
	if at.turns.n == 0 {
		at.gone = true
		delete(s.sites, at.name)
		return
	}
	for range 1 + at.turns.n/sitePart {
		s.admit(at)
	}
	at.pause = min(2*at.pause, siteTickMax)
	s.alarms.set(&at.tick, now.Add(at.pause))
}

// admit lets the next one try.
func (s *scheduler) admit(at *site) {
	if b := at.turns.pop(); b != nil {
		b.admitted = true
		s.leave(b)
		s.enqueue(b)
	}
}

// vacate notes that an attempt has ended which was at these hosts.
func (s *scheduler) vacate(hosts []relay.HostEvidence, now time.Time) {
	if len(s.sites) == 0 {
		return
	}
	for i, h := range hosts {
		for _, name := range []string{h.Address, h.Host} {
			if at := s.sites[name]; at != nil && !seenBefore(hosts[:i], name) {
				s.admit(at)
				if at.pause > siteTick {
					at.pause = siteTick
					s.alarms.set(&at.tick, now.Add(siteTick))
				}
			}
		}
	}
}

func seenBefore(hosts []relay.HostEvidence, name string) bool {
	for _, h := range hosts {
		if h.Address == name || h.Host == name {
			return true
		}
	}
	return false
}
