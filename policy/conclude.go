// From a 250 to the block event, 7 of 10: this file makes one verdict on the
// destination of the verdicts on its hosts. Next: relay/step.go.

package policy

import (
	"time"

	"tlsrelay/events"
)

// HostVerdict is what one host amounts to after all its addresses.
type HostVerdict struct {
	Host string
	Verdict
}

// Merge makes one verdict of the verdicts on a host's addresses. It takes the first of
// the class that comes first here: OK, Suspicious, Inconclusive, Conclusive, Unreachable.
// So an address out of reach does not weaken what another address of the same host
// proved. A host without verdicts was not tried, which counts as out of reach.
func Merge(host string, addresses []Verdict) HostVerdict {
	best := HostVerdict{host, Verdict{Row: "A1", Action: Next, Class: Unreachable, Reason: events.HostUntried}}
	for i, v := range addresses {
		if i == 0 || weight(v.Class) > weight(best.Class) {
			best.Verdict = v
		}
	}
	return best
}

func weight(e Evidence) int {
	switch e {
	case OK:
		return 4
	case Suspicious:
		return 3
	case Inconclusive:
		return 2
	case Conclusive:
		return 1
	}
	return 0
}

// Ruling is what the verdicts on all hosts mean for the message. relay/deliver/result.go
// makes a failure of it: of Block one of class Refused (relay.Refusal), which Step turns
// into the block event.
type Ruling string

// The rulings. Allowed: some host met every demand, so its replies decide and
// not the policy. Block: no host can meet them. Retry: some host failed them and
// may do better later, so the policy window runs. Unreached: no host was there to
// be judged; the message is deferred as any other.
const (
	Allowed   Ruling = "allowed"
	Block     Ruling = "block"
	Retry     Ruling = "retry"
	Unreached Ruling = "unreached"
)

// Rules are the operator's bounds on waiting for better evidence. A pass is one attempt
// that was not cut short.
type Rules struct {
	Window       time.Duration // policy_window: when it has passed, the evidence at hand decides
	ConfirmAfter time.Duration // policy_confirm_after: least time between passes that confirm each other
}

// History is what a delivery remembers of the TLS failures of earlier passes.
// The zero History has seen none.
type History struct {
	// Since is the time of the first pass with evidence against some host. The
	// policy window begins then.
	Since time.Time `json:"since,omitzero"`
	// Ends is the end of that window: from then on the evidence at hand decides,
	// even if no host can be asked. Zero: it never does (on_violation: defer).
	Ends time.Time `json:"ends,omitzero"`
	// Seen are the inconclusive hosts by name, with how often each failed the
	// same way on passes that were far enough apart.
	Seen map[string]Repeated `json:"seen,omitempty"`
	// Violation is the last verdict against a host. A block at the end of the
	// window, or of the lifetime, gives it as its reason.
	Violation HostVerdict `json:"violation,omitzero"`
}

// Repeated counts passes that failed with the same reason at one host.
type Repeated struct {
	Reason events.Reason `json:"reason"`
	Passes int           `json:"passes"`
	Last   time.Time     `json:"last"`
}

// Violated reports whether any host ever gave evidence against it.
func (h History) Violated() bool { return !h.Since.IsZero() }

// Over reports whether the policy window has ended: what was seen decides now.
func (h History) Over(now time.Time) bool { return !h.Ends.IsZero() && !now.Before(h.Ends) }

// Under gives what still counts of h under the demands d. Nothing counts where the
// demand that failed is gone, or is less strict by now. To forget can put a block off, and
// never causes one.
func (h History) Under(d Demands) History {
	if d.Opportunistic() {
		return History{}
	}
	f := h.Violation.Failed
	if !h.Violated() || f.Requirement == "" {
		return h
	}
	if now, stands := d.demand(f.Requirement); !stands || now.Version < f.Version {
		return History{}
	}
	return h
}

// Conclude weighs the hosts of one pass, in preference order, and returns the
// ruling and the history to keep. Opportunistic mail is never blocked and keeps no
// history. Without hosts nothing new is known: earlier evidence stands.
// relay/deliver/result.go calls it when an attempt has gone through the hosts.
//
//	every host                       ruling
//	conclusive                       Block
//	conclusive or inconclusive       Retry; an inconclusive host that repeats itself once counts as conclusive
//	inconclusive                     Retry; Block when all have repeated themselves twice
//	any unreachable or suspicious    Retry; Block when the window ends
//	unreachable                      Unreached; Block when the window of earlier evidence ends
//
// Why not at the first inconclusive failure: load, a middlebox or a fault of our
// own looks the same, and a block cannot be taken back. Why not while a host is
// out of reach: it may comply when it returns. A host that complies gets the
// message, whatever the others did.
func Conclude(d Demands, hosts []HostVerdict, h History, now time.Time, r Rules) (Ruling, History) {
	n := count(hosts)
	if n.ok > 0 {
		return Allowed, History{} // the domain can comply: no window runs
	}
	if d.Opportunistic() {
		return Unreached, History{} // deferred as any other
	}
	h = h.Under(d).record(hosts, now, r)
	h.Ends = time.Time{}
	if !h.Violated() {
		return Unreached, h
	}
	if d.Defer && !d.messageOnly() {
		return unlessUnreached(n), h // the end of the queue lifetime blocks it instead
	}
	h.Ends = h.Since.Add(r.Window)
	switch {
	case h.Over(now):
		return Block, h
	case len(hosts) == 0, n.x > 0 || n.u > 0:
		return unlessUnreached(n), h
	case n.i == 0: // every host is conclusive
		return Block, h
	case d.messageOnly(), h.confirmed(hosts, n.c == 0):
		// Where REQUIRETLS is the only demand, RFC 8689 §4.2.1 ends the message after
		// the last host. The second look is for the demands of accounts only.
		return Block, h
	}
	return Retry, h
}

// unlessUnreached tells a pass with evidence against some host from one without.
func unlessUnreached(n tally) Ruling {
	if n.c+n.i+n.x == 0 {
		return Unreached
	}
	return Retry
}

// tally counts hosts by class: OK, Conclusive, Inconclusive, Unreachable, and Suspicious
// as x.
type tally struct{ ok, c, i, u, x int }

func count(hosts []HostVerdict) (n tally) {
	for _, h := range hosts {
		switch h.Class {
		case OK:
			n.ok++
		case Conclusive:
			n.c++
		case Inconclusive:
			n.i++
		case Suspicious:
			n.x++
		default:
			n.u++
		}
	}
	return n
}

// record returns h with this pass in it. Passes closer together than
// ConfirmAfter count once.
func (h History) record(hosts []HostVerdict, now time.Time, r Rules) History {
	if len(hosts) == 0 {
		return h
	}
	seen := make(map[string]Repeated)
	worst := -1
	for _, v := range hosts {
		if v.Class == Unreachable {
			// This says nothing about its TLS: what was seen before stands.
			if old, ok := h.Seen[v.Host]; ok {
				seen[v.Host] = old
			}
			continue
		}
		if h.Since.IsZero() {
			h.Since = now
		}
		if w := weight(v.Class); w > worst {
			h.Violation, worst = v, w
		}
		if v.Class == Inconclusive {
			seen[v.Host] = h.Seen[v.Host].again(v.Reason, now, r.ConfirmAfter)
		}
	}
	h.Seen = seen
	return h
}

func (p Repeated) again(reason events.Reason, now time.Time, after time.Duration) Repeated {
	switch {
	case p.Reason != reason:
		return Repeated{Reason: reason, Passes: 1, Last: now}
	case now.Sub(p.Last) < after:
		return p
	}
	return Repeated{Reason: reason, Passes: p.Passes + 1, Last: now}
}

// confirmed reports whether every inconclusive host has repeated itself often
// enough to count as conclusive: once beside a conclusive host, twice alone.
func (h History) confirmed(hosts []HostVerdict, alone bool) bool {
	need := 2
	if alone {
		need = 3
	}
	for _, v := range hosts {
		if v.Class == Inconclusive && h.Seen[v.Host].Passes < need {
			return false
		}
	}
	return true
}
