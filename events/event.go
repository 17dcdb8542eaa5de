package events

import (
	"encoding/json"
	"time"
)

// TLSBlocked is the reason of every block that a TLS demand of the sender caused. The
// text is SendGrid's, because bounce parsers match it.
const TLSBlocked = "TLS required but not supported"

// TLSWaiting is the text while the relay still tries the message.
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

// The two bounce types: the address is bad, or the message was refused (by policy, by the
// host, or because its time was over), which says nothing about later mail.
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

	Account   string `json:"account"`    // owner of the webhooks that get it
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

	// The webhook has no fields for these: log line and metrics only.
	Reason     Reason        `json:"token,omitempty"`
	Host       string        `json:"host,omitempty"`
	TLSVersion string        `json:"tls_version,omitempty"` // "1.2", or "" in clear
	CipherName string        `json:"cipher,omitempty"`
	Age        time.Duration `json:"age,omitempty"` // since the 250

	// Origin is only in the log; nil: the log does not say.
	Origin *Origin `json:"-"`
}

// Origin is where a message comes from. The first event of a message has it in the log,
// and every event of a report (a bounce that the relay writes).
type Origin struct {
	From     string // the envelope sender in angle brackets
	Client   string // address of the client
	Key      string // id of the API key, "" without one
	Size     int64  // as stored
	Report   bool   // made by the relay itself
	ReportOf string // the message that the report is about
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

// Session is what an event says of its SMTP session. The zero Session means that there
// was no connection.
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
