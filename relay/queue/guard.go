package queue

import (
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// guarded tells the mass-violation guard of an attempt and, while it holds,
// makes a deferral of what would be a block (tls-policy §3.1). Attempts
// without a demand cannot violate one and are not counted: however many
// messages leave without conditions, they prove nothing about our TLS. Nor do
// faults of our own.
func (q *Queue) guarded(d relay.Delivery, r relay.Result) relay.Result {
	if !r.Demanding || r.Attempt.Reason == events.Internal || q.o.GuardDomains <= 0 {
		return r
	}
	block := r.Attempt.Ruling == policy.Block
	if !q.holds(d.Lane.Destination, block || r.Attempt.Ruling == policy.Retry) || !block {
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

// holds counts one attempt and reports whether drops are to be put off.
func (q *Queue) holds(destination string, violated bool) bool {
	q.guardMu.Lock()
	defer q.guardMu.Unlock()
	now := time.Now()
	q.guard.Attempted(destination, violated, now)
	holds := q.guard.Holds(now)
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
	return q.guard.Holds(time.Now())
}

// ReleaseGuard is an operator's word that the fault is not ours: the guard
// forgets what it has seen, and drops go on.
func (q *Queue) ReleaseGuard() {
	q.guardMu.Lock()
	defer q.guardMu.Unlock()
	q.guard.Release()
}
