package queue

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/publicsuffix"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// guarded tells the mass-violation guard of an attempt and, while it holds,
// makes a deferral of what would be a block. Attempts
// without a demand cannot violate one and are not counted: however many
// messages leave without conditions, they prove nothing about our TLS. Nor do
// faults of our own, and attempts for which there was no connection.
func (q *Queue) guarded(d relay.Delivery, r relay.Result) relay.Result {
	if !r.Demanding || r.Attempt.Reason == events.Internal || r.Crowded != "" || q.o.GuardDomains <= 0 {
		return r
	}
	block := r.Attempt.Ruling == policy.Block
	if !q.holds(sightingOf(d, r, block || r.Attempt.Ruling == policy.Retry)) || !block {
		return r
	}
	r.Attempt.Ruling = policy.Retry
	r.Outcomes = slices.Clone(r.Outcomes)
	for i, o := range r.Outcomes {
		if o.Failure == nil || o.Failure.Class != relay.Refused {
			continue
		}
		f := *o.Failure
		f.Class = relay.Temporary
		f.Reply.Text = strings.Replace(f.Reply.Text, events.TLSBlocked, events.TLSWaiting, 1)
		f.Status = policy.Status(f.Reason, r.History.Violation.Failed.Source, false)
		r.Outcomes[i].Failure = &f
	}
	return r
}

// sightingOf is what the guard is told of an attempt: where it went first, or
// where the one before it did.
func sightingOf(d relay.Delivery, r relay.Result, violated bool) policy.Sighting {
	hosts := r.Attempt.Hosts
	if len(hosts) == 0 && d.Last != nil {
		hosts = d.Last.Hosts
	}
	s := policy.Sighting{
		Account: string(d.Account), Domain: registered(d.Lane.Destination), Violated: violated, At: time.Now(),
	}
	if len(hosts) > 0 {
		s.Network = networkOf(hosts[0].Address)
	}
	return s
}

// registered gives what somebody registered of a destination: the names below
// it are all his. An address literal, or a name that is for anybody to register
// below, stands for itself.
func registered(destination string) string {
	if strings.HasPrefix(destination, "[") {
		return destination
	}
	name, err := publicsuffix.EffectiveTLDPlusOne(destination)
	if err != nil {
		return destination
	}
	return name
}

// networkOf gives the network of a host's address: for IPv6 the /64, all of which
// one host may have. It is zero when there is none.
func networkOf(address string) netip.Prefix {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Prefix{}
	}
	addr, bits := at.Addr().Unmap().WithZone(""), 32
	if addr.Is6() {
		bits = 64
	}
	network, _ := addr.Prefix(bits)
	return network
}

// holds counts one attempt and reports whether drops are to be put off.
func (q *Queue) holds(s policy.Sighting) bool {
	q.guardMu.Lock()
	defer q.guardMu.Unlock()
	q.guard.Attempted(s)
	holds := q.guard.Active(s.At)
	if holds != q.held {
		q.held = holds
		if holds {
			q.log.Error("mass violation: nearly every destination fails its TLS demands, so the fault is likely ours; nothing is dropped until that changes",
				zap.Int("domains", q.o.GuardDomains), zap.Duration("within", q.o.GuardWithin))
		} else {
			q.log.Warn("mass violation is over: what fails its TLS demands is dropped again")
		}
	}
	return holds
}

// GuardHolds reports whether the mass-violation guard holds.
func (q *Queue) GuardHolds() bool {
	q.guardMu.Lock()
	defer q.guardMu.Unlock()
	return q.guard.Active(time.Now())
}

// ReleaseGuard is an operator's word that the fault is not ours: the guard
// forgets what it has seen, and drops go on.
func (q *Queue) ReleaseGuard() {
	q.guardMu.Lock()
	defer q.guardMu.Unlock()
	q.guard.Release()
}
