package relay

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"time"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
)

// MessageID names a message: 16 bytes that begin with the time of acceptance
// in milliseconds, so that ids sort by age. It is written as 22 characters of
// URL-safe base64, without a dot: the id of the 250 reply and the head of
// sg_message_id.
type MessageID [16]byte

// NewMessageID makes an id for a message accepted at t.
func NewMessageID(t time.Time) MessageID {
	var id MessageID
	binary.BigEndian.PutUint64(id[:8], uint64(t.UnixMilli())<<16)
	rand.Read(id[6:])
	return id
}

// ParseMessageID reads the written form, of which an id has one.
func ParseMessageID(s string) (MessageID, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// The decoder passes over line ends wherever they are, and so does not count
	// what it was given.
	if err != nil || len(b) != len(MessageID{}) || len(s) != writtenID {
		return MessageID{}, errors.New("not a message id")
	}
	return MessageID(b), nil
}

// writtenID is how many characters the written form has.
const writtenID = 22

// String gives the written form.
func (id MessageID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Time is when the message was accepted, to the millisecond.
func (id MessageID) Time() time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(id[:8]) >> 16))
}

// MarshalText implements encoding.TextMarshaler.
func (id MessageID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *MessageID) UnmarshalText(b []byte) (err error) {
	*id, err = ParseMessageID(string(b))
	return err
}

// Return is the RET parameter of MAIL (RFC 3461 §4.3).
type Return string

// The values of RET; "" when it was not given.
const (
	ReturnFull    Return = "FULL"
	ReturnHeaders Return = "HDRS"
)

// Message is an accepted message without its body: what all its deliveries
// share. It never changes.
type Message struct {
	ID       MessageID  `json:"id"`
	Account  account.ID `json:"account"`
	Accepted time.Time  `json:"accepted"`
	From     Address    `json:"from"` // null for a report
	Size     int64      `json:"size"` // of the body as stored, in octets
	SMTPID   string     `json:"smtp_id"`
	Client   string     `json:"client,omitempty"` // address it was submitted from, for the log
	// Key is the id of the API key it was submitted with, "" without one. The log of
	// its acceptance tells it, and it is not kept.
	Key string `json:"-"`

	EnvelopeID string `json:"envid,omitempty"` // ENVID, decoded (RFC 3461 §4.4)
	Return     Return `json:"ret,omitempty"`
	RequireTLS bool   `json:"requiretls,omitempty"` // RFC 8689
	SMTPUTF8   bool   `json:"smtputf8,omitempty"`
	EightBit   bool   `json:"8bit,omitempty"` // the body has octets above 127

	Category   json.RawMessage   `json:"category,omitempty"` // from X-SMTPAPI
	UniqueArgs map[string]string `json:"unique_args,omitempty"`

	// Report marks a message the relay made itself (a DSN). It is delivered
	// opportunistically, makes no webhook events and is never bounced.
	Report bool `json:"report,omitempty"`
	// HeadersOnly marks a report that returns nothing of the original's content, so
	// that it may leave in clear whatever its account demands by then.
	HeadersOnly bool `json:"headers_only,omitempty"`
	// ReportOf is the message that a report tells of.
	ReportOf MessageID `json:"report_of,omitzero"`

	Deliveries int `json:"deliveries"` // how many destinations it was split into
}

// Demands gives what is demanded of every host that m may go to: what s demands,
// and REQUIRETLS if m came with it.
func (m *Message) Demands(s policy.Sender) policy.Demands {
	s.RequireTLS = s.RequireTLS || m.RequireTLS
	return s.Demands()
}

// Body is the content of one stored message, as it goes out: RFC 5322 with
// CRLF line ends and without dot-stuffing. Close it after use.
type Body interface {
	// NewReader reads the body from its start; several may be open in turn.
	NewReader() io.Reader
	Size() int64
	io.Closer
}

// Draft receives a body while it is being submitted. Small bodies stay in
// memory, large ones go to a spool file. Exactly one of Store.Accept and Discard
// ends it.
type Draft interface {
	io.Writer
	Size() int64
	Discard()
}
