package deliver

import (
	"context"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
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
	Host        string               `json:"host"`
	Verdict     policy.Verdict       `json:"verdict"`
	Connections []relay.HostEvidence `json:"connections,omitempty"`
}

// Deliverable reports whether mail would be handed over now.
func (r Report) Deliverable() bool { return r.Failure == nil }

// Probe looks at every host and address of a destination without sending
// mail, on new connections, and does not stop at the first good one. It is
// the walk of Deliver up to MAIL, so it cannot disagree with it.
func (e *Engine) Probe(ctx context.Context, destination string, s policy.Sender) Report {
	begin := time.Now()
	rep := Report{Destination: destination, Class: policy.Decide(s, policy.Facts{}).Class()}
	rep.Demands = policy.Decide(s, policy.Facts{}).Demands
	route, failure := e.route(ctx, destination, s)
	if failure != nil {
		rep.Failure, rep.Ruling, rep.Took = failure, policy.Unreached, time.Since(begin)
		return rep
	}
	w := newWalk(ctx, e, route, s)
	w.run()
	var history policy.History
	rep.Ruling, history = w.conclude(time.Now())
	if rep.Ruling != policy.Allowed {
		rep.Failure = w.unserved(rep.Ruling, history, ctx.Err() != nil).Failure
	}
	for _, h := range w.hosts {
		p := ProbedHost{Host: h.Name, Verdict: policy.Merge(h.Name, h.verdicts).Verdict}
		for _, c := range w.evidence {
			if c.Host == h.Name {
				p.Connections = append(p.Connections, c)
			}
		}
		rep.Hosts = append(rep.Hosts, p)
	}
	rep.Took = time.Since(begin)
	return rep
}
