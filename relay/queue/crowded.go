package queue

import (
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/queue/fair"
)

// crowdedHost is a host or an address that had all the connections it may have
// when an attempt came there. Destination queues that go there no longer take a
// slot each to wait for a connection. Their account queues take turns: one may try
// for each attempt there that ends and, since a connection may be given up without
// an attempt, one now and then.
type crowdedHost struct {
	name  string
	turns fair.Turns[*tenant, *accountQueue]
	tick  alarm
	pause time.Duration // between ticks
	gone  bool          // nobody waits there any more
}

const (
	// crowdedTick is how often one that waits may try though no attempt there has
	// ended; where that goes on, the pauses grow up to crowdedTickMax. For each
	// crowdedPart that wait, one more may try.
	crowdedTick    = time.Second
	crowdedTickMax = 10 * time.Second
	crowdedPart    = 1000
)

// isCrowded reports whether the destination queue waits for a connection.
func (dq *destQueue) isCrowded() bool { return dq.crowded != nil && !dq.crowded.gone }

// waitForConnection lets a destination queue wait for a connection to a host or an
// address.
func (s *scheduler) waitForConnection(dq *destQueue, name string, now time.Time) {
	host, ok := s.crowded[name]
	if !ok {
		host = &crowdedHost{name: name, pause: crowdedTick}
		host.tick.fire = func(now time.Time) { s.tick(host, now) }
		s.crowded[name] = host
		s.alarms.set(&host.tick, now.Add(crowdedTick))
	}
	dq.crowded = host
	s.q.metrics.crowded.Inc()
	s.giveBack(s.takeReady(dq))
	for dq.forRoom.Len() > 0 {
		aq := dq.forRoom.Pop()
		s.stopWaiting(aq)
		s.waitToClaim(aq)
	}
}

// tick lets those try who would wait for ever if nothing happened. When nobody
// waits, the host is no longer crowded.
func (s *scheduler) tick(host *crowdedHost, now time.Time) {
	if host.turns.Len() == 0 {
		host.gone = true
		delete(s.crowded, host.name)
		return
	}
	for range 1 + host.turns.Len()/crowdedPart {
		s.admitNext(host)
	}
	host.pause = min(2*host.pause, crowdedTickMax)
	s.alarms.set(&host.tick, now.Add(host.pause))
}

// admitNext lets the next account queue try.
func (s *scheduler) admitNext(host *crowdedHost) {
	if aq, ok := host.turns.Pop(); ok {
		aq.admitted = true
		s.stopWaiting(aq)
		s.queueClaim(aq)
	}
}

// noteEndedAt notes that an attempt has ended which was at these hosts.
func (s *scheduler) noteEndedAt(hosts []relay.HostEvidence, now time.Time) {
	if len(s.crowded) == 0 {
		return
	}
	for i, h := range hosts {
		for _, name := range []string{h.Address, h.Host} {
			if host := s.crowded[name]; host != nil && !namedIn(hosts[:i], name) {
				s.admitNext(host)
				if host.pause > crowdedTick {
					host.pause = crowdedTick
					s.alarms.set(&host.tick, now.Add(crowdedTick))
				}
			}
		}
	}
}

// namedIn reports whether name is that of one of the hosts, or its address.
func namedIn(hosts []relay.HostEvidence, name string) bool {
	for _, h := range hosts {
		if h.Address == name || h.Host == name {
			return true
		}
	}
	return false
}
