package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// defaultListed is how many rows a list has unless told.
const defaultListed = 100

// Queue lists selected deliveries, ready ones first.
func (s *Store) Queue(ctx context.Context, sel relay.Selection, offset, limit int) ([]relay.Queued, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer s.engine.Leave()
	if limit <= 0 {
		limit = defaultListed
	}
	var got []relay.Queued
	err = selected(ctx, db, sel, nil, func(e layout.IndexEntry, _ []byte) (bool, error) {
		if offset > 0 {
			offset--
			return true, nil
		}
		q, err := queued(db, e.Key)
		if errors.Is(err, relay.ErrNotFound) {
			return true, nil // it has ended since the index was read
		}
		got = append(got, q)
		return err == nil && len(got) < limit, err
	})
	return got, err
}

// Count counts selected deliveries. It reads the index alone.
func (s *Store) Count(ctx context.Context, sel relay.Selection, offset, most int) (n int, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return 0, err
	}
	defer s.engine.Leave()
	if most <= 0 {
		return 0, nil
	}
	err = selected(ctx, db, sel, nil, func(layout.IndexEntry, []byte) (bool, error) {
		if offset > 0 {
			offset--
			return true, nil
		}
		n++
		return n < most, nil
	})
	return n, err
}

func queued(db *engine.DB, k relay.DeliveryKey) (q relay.Queued, err error) {
	v, _, err := waiting(db, k)
	if err != nil {
		return q, err
	}
	if q.Delivery, _, err = layout.DecodeDelivery(v); err != nil {
		return q, err
	}
	q.Message, err = layout.ReadMessage(db, k.Message)
	return q, err
}

// selected calls visit with the index entries that sel picks, from the key
// from on (nil: all), until it returns false.
func selected(ctx context.Context, db *engine.DB, sel relay.Selection, from []byte, visit func(e layout.IndexEntry, key []byte) (bool, error)) error {
	prefixes := []string{layout.Ready, layout.Held}
	if sel.Held {
		prefixes = prefixes[1:]
	}
	for _, prefix := range prefixes {
		lower := []byte(prefix)
		if sel.Destination != "" {
			lower = layout.DestinationPrefix(prefix, sel.Destination)
		}
		upper := layout.After(lower)
		if bytes.Compare(from, upper) >= 0 {
			continue
		}
		if bytes.Compare(from, lower) > 0 {
			lower = from
		}
		stopped := false
		err := db.Each(lower, upper, func(key, _ []byte) (bool, error) {
			e, err := layout.ParseIndexKey(key)
			if err != nil || ctx.Err() != nil {
				return false, errors.Join(err, ctx.Err())
			}
			if !picks(sel, e) {
				return true, nil
			}
			more, err := visit(e, key)
			stopped = !more
			return more, err
		})
		if err != nil || stopped {
			return err
		}
	}
	return nil
}

func picks(sel relay.Selection, e layout.IndexEntry) bool {
	return (sel.Account == "" || sel.Account == e.Who) &&
		(sel.Message == relay.MessageID{} || sel.Message == e.Key.Message) &&
		(sel.Destination == "" || sel.Destination == e.Lane.Destination)
}

// actChunk is how many deliveries are changed in one stay in the store.
const actChunk = 512

// Act retries, holds or releases what is selected and says how many
// deliveries that changed. It is durable when it returns.
func (s *Store) Act(ctx context.Context, a relay.Act, sel relay.Selection, now time.Time) (n int, err error) {
	change, err := s.changeOf(a, now)
	if err != nil {
		return 0, err
	}
	sel.Held = sel.Held || a == relay.ActRelease
	if sel.Message != (relay.MessageID{}) {
		keys, err := s.keysOf(sel)
		if err != nil {
			return 0, err
		}
		return s.actOn(keys, change)
	}
	var from []byte
	for {
		keys, next, err := s.someKeys(ctx, sel, from)
		if err != nil {
			return n, err
		}
		changed, err := s.actOn(keys, change)
		n += changed
		if err != nil || next == nil {
			return n, err
		}
		from = next
	}
}

// stateChange gives the new state of a delivery; ok is false to leave it.
type stateChange func(k relay.DeliveryKey, st layout.State) (to layout.State, ok bool)

func (s *Store) changeOf(a relay.Act, now time.Time) (stateChange, error) {
	switch a {
	case relay.ActRetry:
		return func(k relay.DeliveryKey, st layout.State) (layout.State, bool) {
			ok := !st.Held && st.Due.After(now) && !s.memory.inHand(k, now)
			st.Due = now
			return st, ok
		}, nil
	case relay.ActHold, relay.ActRelease:
		hold := a == relay.ActHold
		return func(_ relay.DeliveryKey, st layout.State) (layout.State, bool) {
			ok := st.Held != hold
			st.Held = hold
			return st, ok
		}, nil
	}
	return nil, fmt.Errorf("store: %q is not an act of the store's", a)
}

// someKeys gives the keys of the first selected deliveries from a place in
// the indexes on, and the place to go on from.
func (s *Store) someKeys(ctx context.Context, sel relay.Selection, from []byte) (keys []relay.DeliveryKey, next []byte, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, nil, err
	}
	defer s.engine.Leave()
	err = selected(ctx, db, sel, from, func(e layout.IndexEntry, key []byte) (bool, error) {
		keys = append(keys, e.Key)
		if len(keys) == actChunk {
			next = append(bytes.Clone(key), 0)
			return false, nil
		}
		return true, nil
	})
	return keys, next, err
}

// keysOf gives the keys of one message's selected deliveries, which is a
// short way where the indexes are long.
func (s *Store) keysOf(sel relay.Selection) (keys []relay.DeliveryKey, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer s.engine.Leave()
	err = db.EachPrefix(layout.DeliveriesPrefix(sel.Message), func(_, v []byte) (bool, error) {
		d, st, err := layout.DecodeDelivery(v)
		if err == nil && !st.Done && picks(sel, layout.EntryOf(d)) && (d.Held || !sel.Held) {
			keys = append(keys, d.Key)
		}
		return err == nil, err
	})
	return keys, err
}

// actOn changes the deliveries of keys, each as it is now, and syncs once.
func (s *Store) actOn(keys []relay.DeliveryKey, change stateChange) (n int, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return 0, err
	}
	defer s.engine.Leave()
	for _, k := range keys {
		done, err := s.changeState(db, k, change)
		if err != nil {
			return n, err
		}
		if done {
			n++
		}
	}
	if n > 0 {
		err = db.Sync()
	}
	return n, err
}

func (s *Store) changeState(db *engine.DB, k relay.DeliveryKey, change stateChange) (done bool, err error) {
	defer s.lockMessage(k.Message)()
	v, was, err := waiting(db, k)
	if errors.Is(err, relay.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d, _, err := layout.DecodeDelivery(v)
	if err != nil {
		return false, err
	}
	st, ok := change(k, was)
	if !ok {
		return false, nil
	}
	w := s.newWrite(db)
	defer w.close()
	d.Held, d.Due = st.Held, st.Due
	err = errors.Join(
		w.unindex(d, was),
		w.index(d),
		w.Set(layout.DeliveryKey(k), layout.WithState(v, st)),
	)
	if err != nil {
		return false, err
	}
	return true, w.commit(false)
}

// Take claims one delivery for an operator, whoever has it.
func (s *Store) Take(_ context.Context, key relay.DeliveryKey, lease time.Time) (relay.Claimed, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return relay.Claimed{}, err
	}
	defer s.engine.Leave()
	defer s.lockMessage(key.Message)()
	v, st, err := waiting(db, key)
	if err != nil {
		return relay.Claimed{}, err
	}
	if layout.TimeBits(lease) == layout.TimeBits(st.Due) {
		lease = lease.Add(1) // it must not look like the claim it ends
	}
	c, err := s.reclaim(db, v, st, lease)
	if err != nil {
		return relay.Claimed{}, err
	}
	return *c, nil
}
