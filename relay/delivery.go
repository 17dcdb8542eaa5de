package relay

import (
	"slices"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
)

// Lane is where a delivery waits: deliveries of one lane go to the same place
// under the same kind of policy. Connections are capped per MX host, not per
// lane.
type Lane struct {
	Destination string       `json:"destination"` // Address.Destination
	Class       policy.Class `json:"class"`
}

// DeliveryKey names a delivery: the message and the number of its destination.
type DeliveryKey struct {
	Message MessageID `json:"message"`
	Number  uint16    `json:"number"`
}

// Delivery is one message to one destination, with what has happened so far.
type Delivery struct {
	Key        DeliveryKey `json:"key"`
	Account    account.ID  `json:"account"`
	Lane       Lane        `json:"lane"`
	Recipients []Recipient `json:"recipients"`

	// Due is when the delivery may next be tried. Claim moves it to the end
	// of the lease, so that an attempt cut off by a crash is not repeated at
	// once.
	Due      time.Time `json:"due"`
	Attempts int       `json:"attempts"` // begun, this one included
	Held     bool      `json:"held,omitempty"`

	History policy.History `json:"history,omitzero"` // of TLS failures, across attempts
	Last    *Attempt       `json:"last,omitempty"`   // the newest finished attempt
	// DelayTold marks that the delay notice went out (NOTIFY=DELAY).
	DelayTold bool `json:"delay_told,omitempty"`
}

// State is how far one recipient is.
type State string

// The states of a recipient; all but Waiting are final.
const (
	Waiting   State = ""
	Delivered State = "delivered"
	Bounced   State = "bounced" // the address is no good
	Blocked   State = "blocked" // by a demand, by a host for another reason than the address, or by lapse of time
	Dropped   State = "dropped" // by an operator
)

// Recipient is one recipient of a delivery.
type Recipient struct {
	Address Address `json:"address"`
	Index   int     `json:"index"` // in the envelope, from 0
	State   State   `json:"state,omitempty"`
	Reply   string  `json:"reply,omitempty"` // the last words about it
	Notify  Notify  `json:"notify,omitempty"`
	// OriginalType and Original are ORCPT, decoded (RFC 3461 §4.2).
	OriginalType string `json:"orcpt_type,omitempty"`
	Original     string `json:"orcpt,omitempty"`
}

// Notify is the NOTIFY parameter of RCPT (RFC 3461 §4.1) as a set of bits.
// The zero Notify was not given, which asks for failure reports.
type Notify uint8

// The bits of Notify.
const (
	NotifyNever Notify = 1 << iota
	NotifySuccess
	NotifyFailure
	NotifyDelay
)

// OnFailure reports whether a failure is to be reported.
func (n Notify) OnFailure() bool { return n == 0 || n&NotifyFailure != 0 }

// OnDelay reports whether a delay is to be reported.
func (n Notify) OnDelay() bool { return n&NotifyDelay != 0 }

// OnSuccess reports whether a delivery is to be reported by whoever makes the
// last DSN-capable hop.
func (n Notify) OnSuccess() bool { return n&NotifySuccess != 0 }

// Waiting gives the recipients still to be delivered to, as indexes into
// d.Recipients.
func (d Delivery) Waiting() []int {
	var open []int
	for i, r := range d.Recipients {
		if r.State == Waiting {
			open = append(open, i)
		}
	}
	return open
}

// Attempt is the evidence of one finished attempt: every host tried, what it
// showed, and which demand of whose it failed.
type Attempt struct {
	At     time.Time      `json:"at"`
	Took   time.Duration  `json:"took"`
	Ruling policy.Ruling  `json:"ruling"`
	Reason events.Reason  `json:"reason,omitempty"` // of the attempt as a whole
	Hosts  []HostEvidence `json:"hosts,omitempty"`
}

// HostEvidence is what one connection to one address of one host showed.
type HostEvidence struct {
	Host    string          `json:"host"`
	Address string          `json:"address,omitempty"`
	Stage   policy.Stage    `json:"stage"`
	Hello   policy.Hello    `json:"hello,omitempty"`
	Plain   bool            `json:"plain,omitempty"` // phase 2
	Verdict policy.Verdict  `json:"verdict"`
	TLS     *policy.Session `json:"tls,omitempty"`
	MXAuth  policy.MXAuth   `json:"mx_auth,omitempty"`
	Reply   string          `json:"reply,omitempty"` // the host's last words, or the network's
	// Means says in words what the row of Verdict is, going on from the host's name.
	// It is for people who are shown the evidence, and is not stored (Explained).
	Means string `json:"means,omitempty"`
}

// Explained gives the evidence with words for people.
func Explained(hosts []HostEvidence) []HostEvidence {
	hosts = slices.Clone(hosts)
	for i := range hosts {
		hosts[i].Means = hosts[i].Verdict.Words(hosts[i].Plain)
	}
	return hosts
}
