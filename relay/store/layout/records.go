package layout

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

// ErrRecord is the error of a value that this version cannot read.
var ErrRecord = errors.New("store: unreadable record")

// recordV1 begins every record with a head.
const recordV1 = 1

// State is the head of a delivery record: whether it waits, what decides
// whether a claim still holds, and where its index entry is.
//
//	version 1 | flags 1 | attempts 4 | due 8 | length of account 1 | account | JSON
type State struct {
	Held     bool
	Done     bool // finished: the record is evidence, and has no index entry
	Attempts int
	Due      time.Time
}

const (
	StateLen = 1 + 1 + 4 + 8
	flagHeld = 1
	flagDone = 2
)

// StateOf gives the state of a delivery that is queued.
func StateOf(d relay.Delivery) State {
	return State{Held: d.Held, Attempts: d.Attempts, Due: d.Due}
}

// Same reports whether a claim made at a is still good at b: every other
// claim, Take or Commit moves attempts or due. A hold does not (see
// Store.Act).
func (a State) Same(b State) bool {
	return a.Attempts == b.Attempts && TimeBits(a.Due) == TimeBits(b.Due)
}

// Encode appends the head to b.
func (a State) Encode(b []byte) []byte {
	var flags byte
	if a.Held {
		flags |= flagHeld
	}
	if a.Done {
		flags |= flagDone
	}
	b = append(b, recordV1, flags)
	b = binary.BigEndian.AppendUint32(b, uint32(a.Attempts))
	return AppendTime(b, a.Due)
}

// DecodeState reads the head of a delivery record, and no more of it than that.
func DecodeState(v []byte) (a State, err error) {
	if len(v) < StateLen || v[0] != recordV1 {
		return a, ErrRecord
	}
	return State{
		Held:     v[1]&flagHeld != 0,
		Done:     v[1]&flagDone != 0,
		Attempts: int(binary.BigEndian.Uint32(v[2:])),
		Due:      ParseTime(v[6:]),
	}, nil
}

// IsQueued reports whether a delivery record says that it waits. One that says
// nothing readable does: somebody has to look before the message may go.
func IsQueued(v []byte) bool {
	st, err := DecodeState(v)
	return err != nil || !st.Done
}

// AppendDelivery appends the record of a delivery, waiting or finished, to b.
func AppendDelivery(b []byte, d *relay.Delivery, done bool) ([]byte, error) {
	if len(d.Account) > 255 {
		return nil, fmt.Errorf("store: encode delivery %s: %w: its account", d.Key, relay.ErrUnrecordable)
	}
	st := StateOf(*d)
	st.Done = done
	b = st.Encode(b)
	b = append(append(b, byte(len(d.Account))), d.Account...)
	b, err := d.AppendJSON(b)
	if err != nil {
		return nil, fmt.Errorf("store: encode delivery %s: %w: %w", d.Key, relay.ErrUnrecordable, err)
	}
	return b, nil
}

// EncodeDelivery gives the record of a delivery, waiting or finished.
func EncodeDelivery(d relay.Delivery, done bool) ([]byte, error) {
	return AppendDelivery(nil, &d, done)
}

// AppendMessage appends the record of a message to b.
func AppendMessage(b []byte, m *relay.Message) ([]byte, error) {
	b, err := m.AppendJSON(b)
	if err != nil {
		return nil, fmt.Errorf("store: encode message %s: %w: %w", m.ID, relay.ErrUnrecordable, err)
	}
	return b, nil
}

// ReadMessage reads the record of a message; relay.ErrNotFound: there is none.
func ReadMessage(db interface {
	Get(key []byte) (v []byte, found bool, err error)
}, id relay.MessageID) (m relay.Message, err error) {
	v, found, err := db.Get(MessageKey(id))
	if err != nil {
		return m, err
	}
	if !found {
		return m, fmt.Errorf("%w: message %s", relay.ErrNotFound, id)
	}
	return Decode[relay.Message](v)
}

// Owner tells whose delivery a record is without decoding its JSON, which it
// gives, too.
func Owner(v []byte) (who account.ID, text []byte, err error) {
	if len(v) <= StateLen || len(v) <= StateLen+int(v[StateLen]) {
		return "", nil, ErrRecord
	}
	end := StateLen + 1 + int(v[StateLen])
	return account.ID(v[StateLen+1 : end]), v[end:], nil
}

// DecodeDelivery reads a record of AppendDelivery. What the head says wins over the JSON.
func DecodeDelivery(v []byte) (d relay.Delivery, st State, err error) {
	if st, err = DecodeState(v); err != nil {
		return d, st, err
	}
	_, text, err := Owner(v)
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		return d, st, fmt.Errorf("%w: delivery: %w", ErrRecord, err)
	}
	d.Held, d.Attempts, d.Due = st.Held, st.Attempts, st.Due
	return d, st, nil
}

// WithState gives a delivery record another head.
func WithState(v []byte, st State) []byte {
	return append(st.Encode(make([]byte, 0, len(v))), v[StateLen:]...)
}

// Encode gives the record of any other value.
func Encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("store: encode %T: %w", v, err)
	}
	return b, nil
}

// Decode reads a record of Encode, or of AppendMessage; ErrRecord: it cannot.
func Decode[T any](b []byte) (v T, err error) {
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("%w: %T: %w", ErrRecord, v, err)
	}
	return v, nil
}
