package deliver

import (
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// conclude weighs all hosts of the route, tried or not.
func (a *attempt) conclude(now time.Time) (policy.Ruling, policy.History) {
	verdicts := make([]policy.HostVerdict, len(a.hosts))
	for i, h := range a.hosts {
		verdicts[i] = policy.Merge(h.Name, h.verdicts)
	}
	return policy.Conclude(a.demands, verdicts, a.hist, now, a.e.o.Rules)
}

// result is what the attempt came to.
func (a *attempt) result(begin time.Time) relay.Result {
	now := time.Now()
	r := relay.Result{
		Outcomes: make([]relay.Outcome, len(a.rcpts)),
		Attempt:  relay.Attempt{At: begin, Took: now.Sub(begin), Hosts: a.evidence},
	}
	cut := a.ctx.Err() != nil || a.interrupted() && a.unfinished()
	if cut {
		// Not all hosts were asked, so nothing is concluded about them.
		r.Attempt.Ruling, r.History = policy.Unreached, a.hist
	} else {
		r.Attempt.Ruling, r.History = a.conclude(now)
	}
	a.failUnfit()
	var rest *relay.Outcome
	for i := range a.rcpts {
		rc := &a.rcpts[i]
		stands := rc.done || rc.outcome.Failure != nil && r.Attempt.Ruling != policy.Block
		if !stands {
			if rest == nil {
				rest, r.Cut = a.unserved(r.Attempt.Ruling, r.History, cut), cut
			}
			rc.outcome = *rest
		}
		r.Outcomes[i] = rc.outcome
		if f := rc.outcome.Failure; f != nil && (r.Attempt.Reason == events.NoReason || f.Reason == events.ReplyMixed) {
			r.Attempt.Reason = f.Reason
		}
	}
	r.Changed = a.gate.isShut()
	if r.Cut {
		r.Crowded = a.crowded
	}
	r.Feedback = a.feedback(r, cut)
	a.tell(r)
	return r
}

// unfinished reports whether another host could have done more for a recipient.
func (a *attempt) unfinished() bool {
	return slices.ContainsFunc(a.rcpts, func(r recipient) bool { return !r.done })
}

// unserved is the outcome of the recipients that no host has answered for.
func (a *attempt) unserved(ruling policy.Ruling, h policy.History, cut bool) *relay.Outcome {
	var f *relay.Failure
	switch {
	case cut && a.crowded != "":
		f = failure(relay.Temporary, relay.ReachDestination, events.HostUntried, "4.4.5", a.crowded+" has all the connections it may have")
	case cut:
		f = failure(relay.Temporary, relay.ReachMessage, events.Internal, "4.3.2", "delivery was interrupted")
	case ruling == policy.Block:
		f = relay.Refusal(h.Violation)
	case ruling == policy.Retry:
		f = hesitation(h.Violation)
	default:
		f = a.unreached()
	}
	return &relay.Outcome{Failure: f, Reply: f.Reply, Session: a.telling(f.Host)}
}

// hesitation is the failure of a message that waits until the evidence is clear.
func hesitation(v policy.HostVerdict) *relay.Failure {
	f := failure(relay.Temporary, relay.ReachDestination, v.Reason,
		policy.Status(v.Reason, v.Failed.Source, false), events.TLSWaiting+": "+relay.Violation(v))
	f.Host = v.Host
	return f
}

// unreached is the failure of a message for which no host could be used. Its text is never
// that of a refusal by policy.
func (a *attempt) unreached() *relay.Failure {
	best, words := policy.Merge("", nil), relay.Reply{Text: "no host could be reached"}
	var own *relay.Failure
	for i, h := range a.hosts {
		v := policy.Merge(h.Name, h.verdicts)
		if i == 0 || best.Class == policy.Unreachable && v.Class != policy.Unreachable {
			best, own = v, h.Failure
			if h.lastReply != (relay.Reply{}) {
				words = h.lastReply
			}
		}
	}
	if a.turnedAway() {
		f := replyFailure(words, relay.ReachDestination, best.Host)
		f.Class, f.Reason = relay.Permanent, events.GreetingFail
		if words.Enhanced == "" {
			f.Status = "5.3.2" // RFC 3463 §3.4: system not accepting messages
		}
		return f
	}
	status := "4.4.1"
	switch {
	case best.Class == policy.OK:
		// It served other recipients, and then no more.
		best.Reason, status = events.SessionLost, "4.4.2"
	case best.Class != policy.Unreachable:
		status = policy.Status(best.Reason, best.Failed.Source, false)
	case own != nil:
		status = own.Status
	}
	return &relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachDestination, Reason: best.Reason,
		Reply: words, Status: status, Host: best.Host,
	}
}

// turnedAway reports whether every host greeted with 5xx at every address (row A3). Only
// then does the message bounce.
func (a *attempt) turnedAway() bool {
	for _, h := range a.hosts {
		if len(h.verdicts) == 0 || len(h.verdicts) < len(h.Addrs) {
			return false
		}
		for _, v := range h.verdicts {
			if v.Row != "A3" {
				return false
			}
		}
	}
	return len(a.hosts) > 0
}

// telling picks the connection that events describe when no host decided: one whose
// certificate is not valid, else one with TLS, else one to the host of the failure, else
// the last.
func (a *attempt) telling(host string) events.Session {
	var best events.Session
	rank := 0
	for i := len(a.connections) - 1; i >= 0; i-- {
		s := a.connections[i]
		n := 1
		switch {
		case s.TLSVersion != "" && s.CertErr:
			n = 4
		case s.TLSVersion != "":
			n = 3
		case s.Host == host:
			n = 2
		}
		if n > rank {
			best, rank = s, n
		}
	}
	return best
}

// feedback is what the attempt shows of the destination's health. A host that accepts mail,
// or refuses it permanently, works; a refusal by our policy shows nothing.
func (a *attempt) feedback(r relay.Result, cut bool) relay.Feedback {
	if cut {
		return relay.Neutral
	}
	for _, o := range r.Outcomes {
		if f := o.Failure; f == nil || f.Reason == events.ReplyPerm && f.Reply.Code >= 500 {
			return relay.Healthy
		}
	}
	if a.trouble {
		return relay.Trouble
	}
	for _, h := range a.hosts {
		if policy.Merge(h.Name, h.verdicts).Class != policy.Unreachable {
			return relay.Neutral
		}
	}
	return relay.Trouble
}

// tell logs an attempt that did not go well; what went well has its event.
func (a *attempt) tell(r relay.Result) {
	if r.Attempt.Reason == events.NoReason || !a.e.log.Core().Enabled(zap.DebugLevel) {
		return
	}
	for _, h := range r.Attempt.Hosts {
		a.e.log.Debug("host tried", zap.Stringer("delivery", a.job.Delivery.Key),
			zap.String("host", h.Host), zap.String("address", h.Address), zap.String("row", h.Verdict.Row),
			zap.String("class", string(h.Verdict.Class)), zap.String("reason", string(h.Verdict.Reason)),
			zap.String("reply", h.Reply))
	}
}
