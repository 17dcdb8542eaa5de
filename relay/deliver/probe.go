package deliver

import (
	"context"
	"slices"
	"strings"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp"
)

// Report is what a probe found.
type Report struct {
	Destination string `json:"destination"`
	// Failure is what a message would come to now, nil if it would be handed
	// over: why there was no host to look at, or what the ruling means.
	Failure *relay.Failure `json:"failure,omitempty"`
	// Ruling is the ruling on a first attempt: Allowed, Block, Retry, Unreached.
	Ruling  policy.Ruling   `json:"ruling,omitempty"`
	Class   policy.Class    `json:"class"`
	Demands []policy.Demand `json:"demands,omitempty"`
	Hosts   []ProbedHost    `json:"hosts,omitempty"` // in the order of the route
	Took    time.Duration   `json:"took"`
}

// ProbedHost is one host of a Report: the verdict over all its addresses and
// what every connection showed.
type ProbedHost struct {
	Host    string         `json:"host"`
	Verdict policy.Verdict `json:"verdict"`
	// Means says in words what the row of Verdict is, going on from the host's name.
	Means string `json:"means"`
	// Refused is what its refusal of MAIL would mean for a message; nil: it accepted
	// MAIL, or was not asked.
	Refused     *relay.Failure       `json:"refused,omitempty"`
	Connections []relay.HostEvidence `json:"connections,omitempty"`
}

// Deliverable reports whether mail would be handed over now.
func (r Report) Deliverable() bool { return r.Failure == nil }

// Probe looks at every host and address of a destination, on new connections and without
// sending mail. It does not stop at the first good one. Up to the reply to MAIL it is the
// attempt that Deliver makes, so the two cannot disagree.
func (e *Engine) Probe(ctx context.Context, destination string, s policy.Sender) Report {
	begin := time.Now()
	demands := s.Demands()
	rep := Report{Destination: destination, Class: demands.Class(), Demands: demands.List}
	route, failure := e.route(ctx, destination, demands)
	if failure != nil {
		rep.Failure, rep.Ruling, rep.Took = failure, policy.Unreached, time.Since(begin)
		return rep
	}
	a := newAttempt(ctx, e, route, demands)
	a.mail.Message = &relay.Message{RequireTLS: s.RequireTLS}
	a.run()
	var history policy.History
	rep.Ruling, history = a.conclude(time.Now())
	if rep.Failure = a.refusal(); rep.Ruling != policy.Allowed {
		rep.Failure = a.unserved(rep.Ruling, history, ctx.Err() != nil).Failure
	}
	for _, h := range a.hosts {
		p := ProbedHost{Host: h.Name, Verdict: policy.Merge(h.Name, h.verdicts).Verdict, Refused: h.mailFailure}
		for _, c := range a.evidence {
			if c.Host == h.Name {
				p.Connections = append(p.Connections, c)
			}
		}
		p.Connections = relay.Explained(p.Connections)
		p.Means = p.Verdict.Words(slices.ContainsFunc(p.Connections, func(c relay.HostEvidence) bool { return c.Plain }))
		rep.Hosts = append(rep.Hosts, p)
	}
	rep.Took = time.Since(begin)
	return rep
}

// ask goes on to MAIL with the null sender, which every host has to accept (RFC 5321
// §4.5.5), and takes it back. A host that wants AUTH, or TLS after all, may say so only
// there.
func (a *attempt) ask(h *host, s *smtp.Session, seen smtp.Observation) {
	defer s.WhileOpen(a.ctx)()
	o := &seen.Observed
	said, err := s.AskMail(a.mail.Message)
	switch {
	case err != nil:
		seen.Reply = s.Lost(o, err)
		seen.Verdict = h.decision.Judge(*o)
	case said == (relay.Reply{}):
		a.hearMail(h, nil)
	case s.AsksForTLS(said):
		o.Stage, o.Code = policy.StageMail, said.Code
		seen.Verdict, seen.Reply = h.decision.Judge(*o), said
	default:
		o.Stage, o.Code, seen.Reply = policy.StageMail, said.Code, said
		a.hearMail(h, nullRefusal(said, h.Name))
	}
	if a.ctx.Err() == nil {
		a.record(h, s.Target, seen)
		h.verdicts = append(h.verdicts, seen.Verdict)
	}
	if s.Broken {
		a.discard(s)
	} else {
		a.e.pool.Drop(s)
	}
}

// hearMail notes the answer of a host to MAIL, f if it refused. The first of its addresses
// that answers counts: a delivery goes no further.
func (a *attempt) hearMail(h *host, f *relay.Failure) {
	if !h.askedMail {
		h.askedMail, h.mailFailure = true, f
		a.mailAnswers = append(a.mailAnswers, f)
	}
}

// refusal is what the answers to MAIL mean for a message: it goes no further than the
// first host that accepts it or refuses it permanently.
func (a *attempt) refusal() (f *relay.Failure) {
	for _, f = range a.mailAnswers {
		if decides(f) {
			break
		}
	}
	return f
}

// decides reports whether a message goes no further after an answer to MAIL.
func decides(f *relay.Failure) bool { return f == nil || f.Class == relay.Permanent }

// nullRefusal is what a refusal of the null sender means for a message. If it is about
// that sender it says nothing about another one, and so is no permanent failure.
func nullRefusal(r relay.Reply, host string) *relay.Failure {
	f := replyFailure(r, relay.ReachMessage, host)
	if f.Class == relay.Permanent && isAboutSender(r) {
		f.Class, f.Reason, f.Status = relay.Temporary, events.ReplyTemp, "4"+f.Status[1:]
	}
	return f
}

// isAboutSender recognises a refusal of MAIL FROM:<> that another sender might not get, by
// code (RFC 5321 §4.2.3), enhanced code (RFC 3463 §3.2) or text.
func isAboutSender(r relay.Reply) bool {
	if r.Code == 501 || r.Code == 553 || strings.HasSuffix(r.Enhanced, ".1.7") || strings.HasSuffix(r.Enhanced, ".1.8") {
		return true
	}
	text := strings.ToLower(r.Text)
	for _, word := range [...]string{"<>", "null sender", "null reverse", "empty sender", "empty envelope"} {
		if strings.Contains(text, word) {
			return true
		}
	}
	return false
}
