package relay

import (
	"strconv"
	"strings"

	"tlsrelay/events"
	"tlsrelay/policy"
)

// Reply is an SMTP reply: code, enhanced status code (RFC 3463, "" when the
// host gave none) and text, lines joined by a space.
type Reply struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text,omitempty"`
}

// String gives the reply as one line, "550 5.1.1 no such user".
func (r Reply) String() string {
	if r.Code == 0 {
		return r.Text
	}
	s := strconv.Itoa(r.Code)
	if r.Enhanced != "" {
		s += " " + r.Enhanced
	}
	if r.Text != "" {
		s += " " + r.Text
	}
	return s
}

// Class is whether a failure may pass by itself.
type Class string

// Unknown failures are temporary: nothing is lost by another try. Refused is
// a policy refusal of the sender's side: it is neither the destination's
// trouble nor a bounce of the recipient.
const (
	Temporary Class = "temporary"
	Permanent Class = "permanent"
	Refused   Class = "refused"
)

// Reach is how far a failure goes: whether the next recipient, the next
// message or the next host is worth trying.
type Reach string

// From the narrowest to the widest.
const (
	ReachRecipient   Reach = "recipient"
	ReachMessage     Reach = "message"     // this message at this host
	ReachHost        Reach = "host"        // the host or the connection: try the next one
	ReachDestination Reach = "destination" // no host of the destination will do better
)

// Failure is why something did not get through.
type Failure struct {
	Class  Class         `json:"class"`
	Reach  Reach         `json:"reach"`
	Reason events.Reason `json:"reason"`
	Reply  Reply         `json:"reply"`          // the host's words, or ours with Code 0
	Status string        `json:"status"`         // enhanced status code x.y.z, always set
	Host   string        `json:"host,omitempty"` // who said so, "" when it was us
}

// Error implements error.
func (f *Failure) Error() string { return string(f.Reason) + ": " + f.Reply.String() }

// Refusal is the failure of a message that a demand forbids to deliver. It
// begins with the words that bounce parsers know.
func Refusal(v policy.HostVerdict) *Failure {
	return &Failure{
		Class: Refused, Reach: ReachDestination, Reason: v.Reason,
		Status: policy.Status(v.Reason, v.Failed.Source, true),
		Reply:  Reply{Text: events.TLSBlocked + ": " + Violation(v)},
		Host:   v.Host,
	}
}

// Violation says what failed where, and whose demand it was.
func Violation(v policy.HostVerdict) string {
	var b strings.Builder
	b.WriteString(string(v.Reason) + " at " + v.Host)
	if d := v.Failed; d.Requirement != "" {
		b.WriteString(" (" + string(d.Requirement))
		if d.Version != 0 {
			b.WriteString(" " + d.Version.String())
		}
		b.WriteString(" demanded by " + string(d.Source) + ")")
	}
	return b.String()
}
