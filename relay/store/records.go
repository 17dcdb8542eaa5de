package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// The values are JSON, so that a person can read them with pebble's own tool.
// What changes or is compared without reading the rest stands before it in a
// fixed head, and wins over the same field inside the JSON.

// errRecord is the error of a value that this version cannot read.
var errRecord = errors.New("store: unreadable record")

// recordV1 begins every record with a head.
const recordV1 = 1

// state is the head of a delivery record: whether it waits, what decides
// whether a claim still holds, and where its index entry is.
//
//	version 1 | flags 1 | attempts 4 | due 8 | length of account 1 | account | JSON
type state struct {
	held     bool
	done     bool // finished: the record is evidence, and has no index entry
	attempts int
	due      time.Time
}

const (
	stateLen = 1 + 1 + 4 + 8
	flagHeld = 1
	flagDone = 2
)

func stateOf(d relay.Delivery) state {
	return state{held: d.Held, attempts: d.Attempts, due: d.Due}
}

// same reports whether a claim made at a is still good at b: whoever else
// claims, takes or commits moves attempts or due. A hold does not (see
// Store.Act).
func (a state) same(b state) bool {
	return a.attempts == b.attempts && timeBits(a.due) == timeBits(b.due)
}

func (a state) encode(b []byte) []byte {
	var flags byte
	if a.held {
		flags |= flagHeld
	}
	if a.done {
		flags |= flagDone
	}
	b = append(b, recordV1, flags)
	b = binary.BigEndian.AppendUint32(b, uint32(a.attempts))
	return appendTime(b, a.due)
}

func decodeState(v []byte) (a state, err error) {
	if len(v) < stateLen || v[0] != recordV1 {
		return a, errRecord
	}
	return state{
		held:     v[1]&flagHeld != 0,
		done:     v[1]&flagDone != 0,
		attempts: int(binary.BigEndian.Uint32(v[2:])),
		due:      parseTime(v[6:]),
	}, nil
}

// appendDelivery writes the record of a delivery, waiting or finished.
func appendDelivery(b []byte, d *relay.Delivery, done bool) ([]byte, error) {
	if len(d.Account) > 255 {
		return nil, fmt.Errorf("store: encode delivery %s: %w: its account", d.Key, relay.ErrUnrecordable)
	}
	st := stateOf(*d)
	st.done = done
	b = st.encode(b)
	b = append(append(b, byte(len(d.Account))), d.Account...)
	b, err := d.AppendJSON(b)
	if err != nil {
		return nil, fmt.Errorf("store: encode delivery %s: %w: %w", d.Key, relay.ErrUnrecordable, err)
	}
	return b, nil
}

func encodeDelivery(d relay.Delivery, done bool) ([]byte, error) {
	return appendDelivery(nil, &d, done)
}

func appendMessage(b []byte, m *relay.Message) ([]byte, error) {
	b, err := m.AppendJSON(b)
	if err != nil {
		return nil, fmt.Errorf("store: encode message %s: %w: %w", m.ID, relay.ErrUnrecordable, err)
	}
	return b, nil
}

// owner tells whose delivery a record is without decoding its JSON, which it
// gives, too.
func owner(v []byte) (who account.ID, text []byte, err error) {
	if len(v) <= stateLen || len(v) <= stateLen+int(v[stateLen]) {
		return "", nil, errRecord
	}
	end := stateLen + 1 + int(v[stateLen])
	return account.ID(v[stateLen+1 : end]), v[end:], nil
}

func decodeDelivery(v []byte) (d relay.Delivery, st state, err error) {
	if st, err = decodeState(v); err != nil {
		return d, st, err
	}
	_, text, err := owner(v)
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		return d, st, fmt.Errorf("%w: delivery: %w", errRecord, err)
	}
	d.Held, d.Attempts, d.Due = st.held, st.attempts, st.due
	return d, st, nil
}

// withState gives a delivery record another head.
func withState(v []byte, st state) []byte {
	return append(st.encode(make([]byte, 0, len(v))), v[stateLen:]...)
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("store: encode %T: %w", v, err)
	}
	return b, nil
}

func decode[T any](b []byte) (v T, err error) {
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("%w: %T: %w", errRecord, v, err)
	}
	return v, nil
}
