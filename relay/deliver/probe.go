package deliver

import (
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// Report is what a probe found.
type Report struct {
	Destination string `json:"destination"`
	// Failure is why there was no host to look at; nil otherwise.
	Failure *relay.Failure `json:"failure,omitempty"`
	// Ruling is what a first attempt would come to; Allowed is deliverable.
	Ruling  policy.Ruling   `json:"ruling,omitempty"`
	Class   policy.Class    `json:"class"`
	Demands []policy.Demand `json:"demands,omitempty"`
	// Status is the enhanced status code the mail would get.
	Status string         `json:"status,omitempty"`
	Hosts  []ProbedHost   `json:"hosts,omitempty"`
}

// ProbedHost is one host of a Report: the verdict over all its addresses and
// what every connection showed.
type ProbedHost struct {
	Host        string               `json:"host"`
	Verdict     policy.Verdict       `json:"verdict"`
	Connections []relay.HostEvidence `json:"connections,omitempty"`
}

// Deliverable reports whether mail would be handed over now.
func (r Report) Deliverable() bool { return r.Failure == nil && r.Ruling == policy.Allowed }
