package outbox

import (
	"bytes"
	"errors"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// rowReader reads rows of one batch, and each message that they need once.
type rowReader struct {
	log    *zap.Logger
	db     *engine.DB
	common map[relay.MessageID]events.Fields
}

// readRow is a row that has been found, and not yet put together.
type readRow struct {
	layout.Row
	fields events.Fields
}

func (r *rowReader) row(v []byte) (row readRow, err error) {
	if row.Row, err = layout.ParseRow(v); err == nil && row.Shared {
		row.fields, err = r.fields(row.Message)
	}
	return row, err
}

// fields gives what the events of a message have in common. Where the message is
// gone or cannot be read, which should not be, they are told all the same.
func (r *rowReader) fields(id relay.MessageID) (events.Fields, error) {
	if f, ok := r.common[id]; ok {
		return f, nil
	}
	m, err := layout.ReadMessage(r.db, id)
	if errors.Is(err, relay.ErrNotFound) || errors.Is(err, layout.ErrRecord) {
		r.log.Error("events are told without what their message would add", zap.Stringer("id", id), zap.Error(err))
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
	if !r.Shared {
		return len(r.Object)
	}
	return len(r.Object) + r.fields.Size()
}

// object gives the event as it is sent.
func (r *readRow) object() []byte {
	if !r.Shared {
		return bytes.Clone(r.Object)
	}
	return r.fields.Join(make([]byte, 0, r.size()), r.Object)
}
