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

// state is the head of a delivery record: what decides whether a claim still
// holds and where its index entry is.
//
//	version 1 | flags 1 | attempts 4 | due 8 | JSON
type state struct {
	held     bool
	attempts int
	due      time.Time
}

const (
	stateLen = 1 + 1 + 4 + 8
	flagHeld = 1
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
		attempts: int(binary.BigEndian.Uint32(v[2:])),
		due:      parseTime(v[6:]),
	}, nil
}

func encodeDelivery(d relay.Delivery) ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("store: encode delivery %s: %w", d.Key, err)
	}
	return append(stateOf(d).encode(make([]byte, 0, stateLen+len(text))), text...), nil
}

func decodeDelivery(v []byte) (d relay.Delivery, err error) {
	st, err := decodeState(v)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(v[stateLen:], &d); err != nil {
		return d, fmt.Errorf("%w: delivery: %w", errRecord, err)
	}
	d.Held, d.Attempts, d.Due = st.held, st.attempts, st.due
	return d, nil
}

// withState gives a delivery record another head.
func withState(v []byte, st state) []byte {
	return append(st.encode(make([]byte, 0, len(v))), v[stateLen:]...)
}

// encodeFinished writes the evidence of a finished delivery.
//
//	version 1 | length of account 1 | account | JSON
func encodeFinished(d relay.Delivery) ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil || len(d.Account) > 255 {
		return nil, fmt.Errorf("store: encode delivery %s: %w", d.Key, errors.Join(errRecord, err))
	}
	b := append(make([]byte, 0, 2+len(d.Account)+len(text)), recordV1, byte(len(d.Account)))
	return append(append(b, d.Account...), text...), nil
}

// splitFinished tells whose evidence it is without decoding the rest.
func splitFinished(v []byte) (who account.ID, text []byte, err error) {
	if len(v) < 2 || v[0] != recordV1 || len(v) < 2+int(v[1]) {
		return "", nil, errRecord
	}
	n := 2 + int(v[1])
	return account.ID(v[2:n]), v[n:], nil
}

func decodeFinished(v []byte) (d relay.Delivery, err error) {
	_, text, err := splitFinished(v)
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		return d, fmt.Errorf("%w: evidence: %w", errRecord, err)
	}
	return d, nil
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
