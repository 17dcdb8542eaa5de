package layout

import (
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// The value of a row of the outbox has one of two forms:
//
//	at 8 | object              the event as it is sent
//	1 | at 8 | id 16 | object  without what all events of message id have in common
//
// at is when the event happened; none that a clock of ours tells begins with 1.
// The second form is for messages whose senders gave them much to be told of: it
// stands in the message's record once, instead of in as many rows as there are
// recipients, attempts and endpoints. The record stays for as long as a row needs
// it (see Sweep).
const rowShared = 1

// shareOver is from how many octets on what events have in common is kept once. A
// message id and two or three unique arguments have less, and need no other record
// read when they are sent.
const shareOver = 256

// RowForm is the form of the rows of one batch.
type RowForm struct {
	shared bool
	id     relay.MessageID
	name   string // of id, in events
}

// RowFormOf gives the form of rows of evs, which are of m.
func RowFormOf(m *relay.Message, evs []events.Event) RowForm {
	if evs[0].Common().Size() <= shareOver {
		return RowForm{}
	}
	return RowForm{shared: true, id: m.ID, name: m.ID.String()}
}

// Append appends the row of an event to b.
func (f *RowForm) Append(b []byte, e *events.Event) []byte {
	if !f.shared || e.MessageID != f.name {
		return e.AppendJSON(AppendTime(b, e.At))
	}
	b = AppendTime(append(b, rowShared), e.At)
	return e.AppendOwn(append(b, f.id[:]...))
}

// Where the object begins in either form.
const (
	objectAt       = 8
	sharedObjectAt = 1 + 8 + idLen
)

// Row is a row of the outbox, taken apart.
type Row struct {
	At     time.Time // when the event happened
	Object []byte    // the event; of a shared row, what is its own. Part of the value
	// Shared: what the event has in common with others is in the record of Message.
	Shared  bool
	Message relay.MessageID
}

// ParseRow reads a row of RowForm.Append.
func ParseRow(v []byte) (r Row, err error) {
	switch {
	case len(v) >= sharedObjectAt && v[0] == rowShared:
		return Row{ParseTime(v[1:]), v[sharedObjectAt:], true, relay.MessageID(v[1+8 : sharedObjectAt])}, nil
	case len(v) >= objectAt:
		return Row{At: ParseTime(v), Object: v[objectAt:]}, nil
	}
	return r, ErrRecord
}
