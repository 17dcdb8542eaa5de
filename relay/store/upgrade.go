package store

import (
	"errors"

	"go.uber.org/zap"

	"tlsrelay/relay"
)

// upgradeChunk is how many octets are brought over in one batch.
const upgradeChunk = 4 << 20

// fromLayout1 brings over a database in which a message had a place for each
// of its parts while it was queued (m/ id, d/ id n, b/ id), and moved when it
// had ended (!/ id, !/ id n). A crash on the way leaves what can be brought
// over by another run: every record is in its old place or in its new one.
func (s *Store) fromLayout1(en *engine) error {
	for _, part := range []struct {
		prefix string
		kind   string // what follows the id in the new key
		tail   int    // length of the old key behind the id
		record func(v []byte) ([]byte, error)
	}{
		{"m/", "", 0, unchanged},
		{"b/", string(kindBody), 0, unchanged},
		{"d/", string(kindDelivery), 2, waitingFromLayout1},
		{"!/", string(kindDelivery), 2, finishedFromLayout1},
	} {
		b := en.db.NewBatch()
		err := en.eachPrefix([]byte(part.prefix), func(old, v []byte) (bool, error) {
			if len(old) != idEnd+part.tail {
				return true, nil // brought over, or the same in both
			}
			record, err := part.record(v)
			if err != nil {
				s.log.Error("an unreadable record is brought over as it is", zap.ByteString("key", old), zap.Error(err))
			}
			key := append([]byte(pMessage), old[len(pMessage):idEnd]...)
			key = append(append(key, part.kind...), old[idEnd:]...)
			if err := errors.Join(b.Set(key, record, nil), b.Delete(old, nil)); err != nil || b.Len() < upgradeChunk {
				return err == nil, err
			}
			err = en.apply(b, false)
			b = en.db.NewBatch()
			return err == nil, err
		})
		if err := errors.Join(err, en.apply(b, true)); err != nil {
			return err
		}
	}
	return nil
}

func unchanged(v []byte) ([]byte, error) { return v, nil }

// waitingFromLayout1 makes today's record of a queued delivery: the state and
// the JSON had nothing between them. One that it cannot read is as unreadable
// in its new place as it was in the old.
func waitingFromLayout1(v []byte) ([]byte, error) {
	st, err := decodeState(v)
	if err != nil {
		return v, err
	}
	d, err := decode[relay.Delivery](v[stateLen:])
	if err != nil {
		return v, err
	}
	d.Held, d.Attempts, d.Due = st.held, st.attempts, st.due
	return encodeDelivery(d, false)
}

// finishedFromLayout1 makes today's record of a finished delivery, which had a
// head of its own: version 1 | length of account 1 | account | JSON. One that
// it cannot read has finished all the same.
func finishedFromLayout1(v []byte) ([]byte, error) {
	unreadable := append(append(state{done: true}.encode(nil), 0), v...)
	if len(v) < 2 || v[0] != recordV1 || len(v) < 2+int(v[1]) {
		return unreadable, errRecord
	}
	d, err := decode[relay.Delivery](v[2+int(v[1]):])
	if err != nil {
		return unreadable, err
	}
	return encodeDelivery(d, true)
}
