package events

import (
	"encoding/json"
	"time"
)

// TLSBlocked is the reason of every block that a demand of the sender's side
// caused. The words are SendGrid's; bounce parsers match them.
const TLSBlocked = "TLS required but not supported"

// TLSWaiting stands in its place while the message is still tried.
const TLSWaiting = "TLS requirement not met yet"

// Kind is what happened, by the name that the webhook gives it in "event".
type Kind string

// The kinds of event a relay makes. A block is a [Bounce] of [TypeBlocked].
const (
	Processed Kind = "processed"
	Deferred  Kind = "deferred"
	Delivered Kind = "delivered"
	Bounce    Kind = "bounce"
)

// BounceType is the "type" of a [Bounce].
type BounceType string

// The two bounce types: the address is no good, and a refusal (by policy, of
// this message, or because time ran out) that says nothing about later mail.
const (
	TypeBounce  BounceType = "bounce"
	TypeBlocked BounceType = "blocked"
)

// Event is one thing that happened to one recipient of one message. Build it
// with the constructor of its kind ([NewProcessed], [NewDeferred],
// [NewDelivered], [NewBounce]); which fields reach the webhook depends on the
// kind (TestFieldsOfKinds has the table).
type Event struct {
	Kind Kind      `json:"kind"`
	ID   string    `json:"id"` // sg_event_id: unique, and the same on every retry
	At   time.Time `json:"at"`

	Account   string `json:"account"`    // owner of the webhooks that hear of it
	MessageID string `json:"message_id"` // the id of the 250 reply
	Recipient int    `json:"recipient"`  // index in the envelope, from 0
	Email     string `json:"email"`
	SMTPID    string `json:"smtp_id"` // Message-ID of the mail, with < >

	Category   json.RawMessage   `json:"category,omitempty"` // string or array, as the sender gave it
	UniqueArgs map[string]string `json:"unique_args,omitempty"`

	Type           BounceType `json:"type,omitempty"`
	Classification string     `json:"classification,omitempty"`
	Reply          string     `json:"reply,omitempty"`  // deferred, delivered: "response"; bounce: "reason"
	Status         string     `json:"status,omitempty"` // enhanced status code, x.y.z (RFC 3463)
	Attempt        int        `json:"attempt,omitempty"`
	IP             string     `json:"ip,omitempty"` // local address the connection was made from
	TLS            bool       `json:"tls,omitempty"`
	CertErr        bool       `json:"cert_err,omitempty"` // the certificate seen would not satisfy require_valid_cert

	// What the webhook has no field for: log line and metrics only.
	Reason     Reason        `json:"token,omitempty"`
	Host       string        `json:"host,omitempty"`
	TLSVersion string        `json:"tls_version,omitempty"` // "1.2", or "" in clear
	CipherName string        `json:"cipher,omitempty"`
	Age        time.Duration `json:"age,omitempty"` // since the 250

	// Origin is told in the log alone, when it happens; nil: there is nothing to tell.
	Origin *Origin `json:"-"`
}

// Origin is where a message comes from, for its first line in the log, and of every
// event of a report what it is.
type Origin struct {
	From     string // the envelope sender in angle brackets
	Client   string // address of the client
	Key      string // id of the API key, "" without one
	Size     int64  // as stored
	Report   bool   // made by the relay itself
	ReportOf string // the message that the report tells of
}

// Subject is what all events of one recipient share.
type Subject struct {
	Account    string
	MessageID  string
	Recipient  int
	Email      string
	SMTPID     string
	Category   json.RawMessage
	UniqueArgs map[string]string
	Origin     *Origin
}

// Session is what an event tells of the SMTP session it came from; the zero
// Session means that no connection was made.
type Session struct {
	LocalIP    string
	Host       string
	TLSVersion string // "" in clear
	CipherName string
	CertErr    bool
}

// Block is a row of the block list (/v3/suppression/blocks): one per account
// and address, the newest wins.
type Block struct {
	Account string    `json:"account"`
	Email   string    `json:"email"`
	Reason  string    `json:"reason"`
	Status  string    `json:"status"`
	Created time.Time `json:"created"`
	// MessageID leads to the evidence: the finished delivery in the store.
	MessageID string `json:"message_id"`
}
