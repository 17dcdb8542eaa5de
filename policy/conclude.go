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

// Merge makes one verdict of a host's addresses: ok if any is; else x, else
// i, else c if any is; else u. An unreachable address does not weaken what
// another address of the same host proved (tls-policy §3.1). Without
// verdicts the host is untried, which counts as unreachable.
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

// Ruling is what the walk over all hosts means for the message.
type Ruling string

// Allowed: some host met every demand, so replies decide, not policy. Block:
// no host can. Retry: TLS evidence that may change, so the policy window runs.
// Unreached: nobody to talk to; an ordinary deferral.
const (
	Allowed   Ruling = "allowed"
	Block     Ruling = "block"
	Retry     Ruling = "retry"
	Unreached Ruling = "unreached"
)

// Rules are the operator's bounds on waiting for better evidence.
type Rules struct {
	Window       time.Duration // policy_window: after it, the evidence at hand decides
	ConfirmAfter time.Duration // policy_confirm_after: least time between passes that confirm
}

// History is what a delivery remembers of the TLS failures of earlier passes.
// The zero History has seen none.
type History struct {
	// Since is the first pass with evidence against some host; it opens the
	// policy window.
	Since time.Time `json:"since,omitzero"`
	// Ends is the end of that window, when the evidence at hand decides even
	// if nobody can be asked. Zero: it does not (on_violation: defer).
	Ends time.Time `json:"ends,omitzero"`
	// Seen are the inconclusive hosts by name, with how often each failed the
	// same way on passes that were far enough apart.
	Seen map[string]Repeated `json:"seen,omitempty"`
	// Violation is the last verdict that spoke against a host: what a block at
	// the end of the window or of the lifetime gives as its reason.
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

// Under gives what h means under a decision: nothing where nobody demands any
// more what failed, or no longer as much. To forget can only put a drop off.
func (h History) Under(d Decision) History {
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

// Conclude weighs the hosts of one pass, in preference order, under a
// decision with demands (tls-policy §3.1), and returns the history to keep.
// An opportunistic decision is never blocked, and forgets, as does one without the
// demand that failed. Without hosts nothing was learned, and nothing else is
// forgotten.
//
//	every host c                         Block
//	c and i, none u                      Retry; i that repeats once counts as c
//	all i                                Retry; Block on the second repetition
//	any u beside c or i, or any x        Retry; Block when the window ends
//	all u                                Unreached, until earlier evidence's window ends
func Conclude(d Decision, hosts []HostVerdict, h History, now time.Time, r Rules) (Ruling, History) {
	n := count(hosts)
	if n.ok > 0 {
		return Allowed, History{} // the domain can comply: no window runs
	}
	if d.Opportunistic() {
		return Unreached, History{}
	}
	h = h.Under(d).record(hosts, now, r)
	h.Ends = time.Time{}
	if !h.Violated() {
		return Unreached, h
	}
	if d.Hold && !d.messageOnly() {
		return retryOr(n), h // blocked by the end of the queue lifetime instead
	}
	h.Ends = h.Since.Add(r.Window)
	switch {
	case h.Over(now):
		return Block, h
	case len(hosts) == 0, n.x > 0 || n.u > 0:
		return retryOr(n), h
	case n.i == 0:
		return Block, h
	case d.messageOnly(), h.confirmed(hosts, n.c == 0):
		return Block, h
	}
	return Retry, h
}

// retryOr tells a pass that met TLS trouble from one that met nobody.
func retryOr(n tally) Ruling {
	if n.c+n.i+n.x == 0 {
		return Unreached
	}
	return Retry
}

// messageOnly reports whether REQUIRETLS is the only demand. RFC 8689 §4.2.1
// ends such a message after the last host; waiting for confirmation is our
// own courtesy to accounts.
func (d Decision) messageOnly() bool {
	for _, x := range d.Demands {
		if x.Source != FromMessage {
			return false
		}
	}
	return true
}

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
			// Says nothing about TLS: what was seen before stands.
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
