package deliver

import (
	"slices"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp"
)

// unfit passes over the recipients that this host cannot serve, without asking it. Another
// host may do better, so the failure is temporary until all hosts were seen.
func (a *attempt) unfit(h *host, s *smtp.Session, told events.Session) {
	for i := range a.rcpts {
		r := &a.rcpts[i]
		f := a.misfit(r, h, s)
		if r.done || f == nil {
			continue
		}
		r.askedIn = a.sessions
		if !slices.Contains(r.unfit, h) {
			r.unfit = append(r.unfit, h)
		}
		// The reply of a host that could serve it tells more.
		tells := r.outcome.Failure != nil && r.outcome.Failure != r.misfit.Failure
		r.misfit = relay.Outcome{Failure: f, Reply: f.Reply, Session: told}
		if !tells {
			r.outcome = r.misfit
		}
	}
}

// misfit says what the message needs for a recipient and the host does not offer; nil:
// nothing.
func (a *attempt) misfit(r *recipient, h *host, s *smtp.Session) *relay.Failure {
	switch {
	case s.Ext.MaxSize > 0 && a.job.Body.Size() > s.Ext.MaxSize: // RFC 1870 §6.1
		return failure(relay.Temporary, relay.ReachMessage, events.ReplyTemp, "4.3.4",
			"message is larger than "+h.Name+" takes")
	case !s.Ext.UTF8 && (a.job.Message.From.NeedsUTF8() || r.Address.NeedsUTF8()): // RFC 6531 §3.5
		return failure(relay.Temporary, relay.ReachRecipient, events.Unsupported, "4.6.7",
			h.Name+" does not take internationalized addresses")
	}
	return nil
}

// failUnfit makes the failure permanent for a recipient that no host can serve. A host that
// could not be asked might.
func (a *attempt) failUnfit() {
	for i := range a.rcpts {
		r := &a.rcpts[i]
		if r.done || len(r.unfit) == 0 || slices.ContainsFunc(a.hosts, r.mayTake) {
			continue
		}
		f := *r.misfit.Failure
		f.Class, f.Status = relay.Permanent, "5"+f.Status[1:]
		if f.Reason == events.ReplyTemp {
			f.Reason = events.ReplyPerm
		}
		r.finish(&f, r.misfit.Session)
	}
}

// mayTake reports whether a host may yet serve the recipient: it is not known to be unfit,
// and no demand rules it out.
func (r *recipient) mayTake(h *host) bool {
	ruledOut := !h.decision.Opportunistic() && policy.Merge(h.Name, h.verdicts).Class == policy.Conclusive
	return !ruledOut && !slices.Contains(r.unfit, h)
}
