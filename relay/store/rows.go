package store

import (
	"bytes"
	"errors"
	"time"

	"go.uber.org/zap"

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

// rowForm is the form of the rows of one batch.
type rowForm struct {
	shared bool
	id     relay.MessageID
	name   string // of id, in events
}

// rowFormOf gives the form of rows of evs, which are of m.
func rowFormOf(m *relay.Message, evs []events.Event) rowForm {
	if evs[0].Common().Size() <= shareOver {
		return rowForm{}
	}
	return rowForm{shared: true, id: m.ID, name: m.ID.String()}
}

// append appends the row of an event to b.
func (f *rowForm) append(b []byte, e *events.Event) []byte {
	if !f.shared || e.MessageID != f.name {
		return e.AppendJSON(appendTime(b, e.At))
	}
	b = appendTime(append(b, rowShared), e.At)
	return e.AppendOwn(append(b, f.id[:]...))
}

// rowLens are where the object begins in either form.
const (
	objectAt       = 8
	sharedObjectAt = 1 + 8 + idLen
)

// rowTime gives when the event of a row happened.
func rowTime(v []byte) (time.Time, bool) {
	switch {
	case len(v) >= sharedObjectAt && v[0] == rowShared:
		return parseTime(v[1:]), true
	case len(v) >= objectAt:
		return parseTime(v), true
	}
	return time.Time{}, false
}

// rowMessage gives the message that a row needs to be read; ok is false when it
// needs none.
func rowMessage(v []byte) (id relay.MessageID, ok bool) {
	if len(v) < sharedObjectAt || v[0] != rowShared {
		return id, false
	}
	return relay.MessageID(v[1+8 : sharedObjectAt]), true
}

// rowReader reads rows of one batch, and each message that they need once.
type rowReader struct {
	s      *Store
	en     *engine
	common map[relay.MessageID]events.Fields
}

// readRow is a row that has been found, and not yet put together.
type readRow struct {
	at     time.Time
	own    []byte // as in the database
	shared bool
	fields events.Fields
}

func (r *rowReader) row(v []byte) (row readRow, err error) {
	var ok bool
	if row.at, ok = rowTime(v); !ok {
		return row, errRecord
	}
	id, shared := rowMessage(v)
	if !shared {
		row.own = v[objectAt:]
		return row, nil
	}
	row.own, row.shared = v[sharedObjectAt:], true
	row.fields, err = r.fields(id)
	return row, err
}

// fields gives what the events of a message have in common. Where the message is
// gone or cannot be read, which should not be, they are told all the same.
func (r *rowReader) fields(id relay.MessageID) (events.Fields, error) {
	if f, ok := r.common[id]; ok {
		return f, nil
	}
	m, err := r.en.message(id)
	if errors.Is(err, relay.ErrNotFound) || errors.Is(err, errRecord) {
		r.s.log.Error("events are told without what their message would add", zap.Stringer("id", id), zap.Error(err))
	} else if err != nil {
		return nil, err
	}
	if r.common == nil {
		r.common = make(map[relay.MessageID]events.Fields)
	}
	c := events.Common{SMTPID: m.SMTPID, Category: m.Category, UniqueArgs: m.UniqueArgs}
	r.common[id] = c.Fields()
	return r.common[id], nil
}

// size is how long the object is.
func (r *readRow) size() int {
	if !r.shared {
		return len(r.own)
	}
	return len(r.own) + r.fields.Size()
}

// object gives the event as it is sent.
func (r *readRow) object() []byte {
	if !r.shared {
		return bytes.Clone(r.own)
	}
	return r.fields.Join(make([]byte, 0, r.size()), r.own)
}
