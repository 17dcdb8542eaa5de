package attempt

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/publicsuffix"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// Guard is the mass-violation guard (policy.Guard) of all attempts. It is safe for
// concurrent use.
type Guard struct {
	o   Options
	log *zap.Logger

	mu     sync.Mutex
	guard  *policy.Guard
	active bool // when it was told last
}

func newGuard(o Options, log *zap.Logger) *Guard {
	return &Guard{o: o, log: log, guard: policy.NewGuard(o.GuardDomains, o.GuardWithin)}
}

// guarded tells the guard of an attempt and, while it is active, makes a
// deferral of what would be a block. It does not tell it of attempts that say
// nothing of our TLS: those without a demand, of which there may be any number,
// those that failed by a fault of our own, and those that found no connection.
func (m *Maker) guarded(d relay.Delivery, r relay.Result) relay.Result {
	if !r.Demanding || r.Attempt.Reason == events.Internal || r.Crowded != "" || m.o.GuardDomains <= 0 {
		return r
	}
	block := r.Attempt.Ruling == policy.Block
	if !m.Guard.attempted(sightingOf(d, r, block || r.Attempt.Ruling == policy.Retry)) || !block {
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

// sightingOf is what the guard is told of an attempt: where it went first or, when
// it came nowhere, where the attempt before it did.
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

// registered gives what somebody registered of a destination: all names below it
// are the same owner's. An address literal stands for itself, and so does a name
// below which anybody may register.
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

// networkOf gives the network of a host's address: its IPv4 address, or the /64 of
// its IPv6 address, since one host may have all of that. It is zero when there is
// no address.
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

// attempted counts one attempt and reports whether blocks are to be put off.
func (g *Guard) attempted(s policy.Sighting) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guard.Attempted(s)
	active := g.guard.Active(s.At)
	if active != g.active {
		g.active = active
		if active {
			g.log.Error("mass violation: nearly every destination fails its TLS demands, so the fault is likely ours; nothing is dropped until that changes",
				zap.Int("domains", g.o.GuardDomains), zap.Duration("within", g.o.GuardWithin))
		} else {
			g.log.Warn("mass violation is over: what fails its TLS demands is dropped again")
		}
	}
	return active
}

// Active reports whether blocks are put off.
func (g *Guard) Active() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.guard.Active(time.Now())
}

// Release is an operator's word that the fault is not ours: the guard forgets what
// it has seen, and what fails its demands is dropped again.
func (g *Guard) Release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.guard.Release()
}
