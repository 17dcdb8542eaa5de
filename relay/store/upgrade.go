package store

import (
	"errors"
	"fmt"

	"tlsrelay/relay"
)

// upgradeChunk is how many octets are brought over in one batch.
const upgradeChunk = 4 << 20

// fromLayout1 brings over a database in which a message had a place for each
// of its parts while it was queued (m/ id, d/ id n, b/ id), and moved when it
// had ended (!/ id, !/ id n). A crash on the way leaves what can be brought
// over by another run: every record is in its old place or in its new one.
func (en *engine) fromLayout1() error {
	const head = len("m/")
	for _, part := range []struct {
		prefix string
		tail   int // length of the key behind the id
		bring  func(key, v []byte) (newKey, newValue []byte, err error)
	}{
		{"m/", 0, func(key, v []byte) ([]byte, []byte, error) {
			return append([]byte(pMessage), key[head:]...), v, nil
		}},
		{"b/", 0, func(key, v []byte) ([]byte, []byte, error) {
			return append(append([]byte(pMessage), key[head:]...), kindBody), v, nil
		}},
		{"d/", 2, func(key, v []byte) ([]byte, []byte, error) {
			st, err := decodeState(v)
			if err != nil {
				return nil, nil, err
			}
			return deliveryFromLayout1(key[head:], v[stateLen:], &st)
		}},
		// Finished deliveries had a head of their own:
		// version 1 | length of account 1 | account | JSON
		{"!/", 2, func(key, v []byte) ([]byte, []byte, error) {
			if len(v) < 2 || v[0] != recordV1 || len(v) < 2+int(v[1]) {
				return nil, nil, errRecord
			}
			return deliveryFromLayout1(key[head:], v[2+int(v[1]):], nil)
		}},
	} {
		b := en.db.NewBatch()
		err := en.eachPrefix([]byte(part.prefix), func(key, v []byte) (bool, error) {
			if len(key) != head+idLen+part.tail {
				return true, nil // brought over, or the same in both
			}
			newKey, newValue, err := part.bring(key, v)
			if err != nil {
				return false, fmt.Errorf("store: %q: %w", key, err)
			}
			if err := errors.Join(b.Set(newKey, newValue, nil), b.Delete(key, nil)); err != nil || b.Len() < upgradeChunk {
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

// deliveryFromLayout1 makes today's record of a delivery from its JSON and,
// while it waits, its state.
func deliveryFromLayout1(name, text []byte, waits *state) (key, v []byte, err error) {
	d, err := decode[relay.Delivery](text)
	if err != nil {
		return nil, nil, err
	}
	key = append([]byte(pMessage), name[:idLen]...)
	key = append(append(key, kindDelivery), name[idLen:]...)
	if waits == nil {
		v, err = encodeDelivery(d, true)
		return key, v, err
	}
	d.Held, d.Attempts, d.Due = waits.held, waits.attempts, waits.due
	v, err = encodeDelivery(d, false)
	return key, v, err
}
