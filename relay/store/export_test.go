package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
	"tlsrelay/relay/store/outbox"
	"tlsrelay/relay/store/tally"
)

// Verify checks that the records and the indexes of the database agree.
func (s *Store) Verify() error {
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	must := func(key []byte, format string, args ...any) {
		if _, ok, err := db.Get(key); err != nil || !ok {
			fault(format+": %v", append(args, err)...)
		}
	}
	each := func(prefix string, visit func(key, v []byte) error) {
		if err := db.EachPrefix([]byte(prefix), func(k, v []byte) (bool, error) { return true, visit(k, v) }); err != nil {
			fault("%s: %w", prefix, err)
		}
	}
	queued, want := make(map[relay.MessageID]int), tally.New(tally.Bounds{}, zap.NewNop())
	each(layout.Messages, func(key, v []byte) error {
		if !layout.IsDelivery(key) {
			return nil
		}
		d, st, err := layout.DecodeDelivery(v)
		if err != nil {
			return err
		}
		must(layout.MessageKey(d.Key.Message), "delivery %s has no message", d.Key)
		if st.Done {
			return nil
		}
		queued[d.Key.Message]++
		prefix := layout.Ready
		if d.Held {
			prefix = layout.Held
		}
		n := layout.WaitingRecipients(&d)
		var one tally.Delta
		one.Move(d.Account, d.Lane.Destination, 1, n)
		want.Add(&one)
		v, ok, err := db.Get(layout.EntryOf(d).Encode(prefix))
		if got, known := layout.ParseIndexValue(v); err != nil || !ok || known && got != n {
			fault("delivery %s is not in the index for %d recipients, %t %v: %v", d.Key, n, ok, v, err)
		}
		return nil
	})
	s.engine.Count(context.Background(), db)
	if got, want := s.tally.String(), want.String(); got != want {
		fault("counted is %s, not %s", got, want)
	}
	var rows outbox.Counts
	rows.Reset(0)
	each(layout.Outbox, func(key, v []byte) error {
		id, _, err := layout.ParseRowKey(key)
		if p, there, _ := s.Endpoint(context.Background(), id); there {
			rows.Add(p.Account, id, 1, int64(len(key)+len(v)))
		}
		if r, _ := layout.ParseRow(v); r.Shared {
			must(layout.MessageKey(r.Message), "a row of %s needs message %s", id, r.Message)
		}
		return err
	})
	if got, want := s.outbox.String(), rows.String(); got != want {
		fault("counted in the outbox is %s, not %s", got, want)
	}
	for id := range queued {
		if !s.bodies.Spooled(id) {
			must(layout.BodyKey(id), "message %s has no body", id)
		} else if body, err := s.bodies.Open(id); err != nil || body.Close() != nil {
			fault("message %s has no spool file: %w", id, err)
		}
	}
	for _, prefix := range []string{layout.Ready, layout.Held} {
		each(prefix, func(key, _ []byte) error {
			e, err := layout.ParseIndexKey(key)
			if err == nil {
				var v []byte
				if v, _, err = db.Get(layout.DeliveryKey(e.Key)); err == nil {
					var st layout.State
					if st, err = layout.DecodeState(v); st.Done {
						fault("delivery %s has finished, and is in the index", e.Key)
					}
				}
			}
			return err
		})
	}
	each(layout.Messages, func(key, _ []byte) error {
		id := relay.MessageID(key[len(layout.Messages):])
		switch {
		case bytes.Equal(key, layout.MessageKey(id)):
			must(layout.DeliveryKey(relay.DeliveryKey{Message: id}), "message %s has no deliveries", id)
		case bytes.Equal(key, layout.BodyKey(id)) && queued[id] == 0:
			fault("the body of %s belongs to no message", id)
		}
		return nil
	})
	each(layout.Spooled, func(key, _ []byte) error {
		id, err := layout.ParseSpooledKey(key)
		if err == nil && queued[id] == 0 {
			fault("the spool file of %s belongs to no message", id)
		}
		return err
	})
	return errors.Join(errs...)
}

// Waiting gives what the events of all accounts take that wait, once Run has counted
// what was there.
func (s *Store) Waiting() (rows int, octets int64) {
	s.Depth()
	return s.outbox.Waiting()
}

// Depth gives what the gauges show once Run has counted what was there.
func (s *Store) Depth() (messages, waiting, held int64) {
	db, err := s.engine.Enter()
	if err != nil {
		return -1, -1, -1
	}
	defer s.engine.Leave()
	for !db.Counted() {
		time.Sleep(time.Millisecond)
	}
	return s.tally.Depth()
}

// Spoil makes the record of a delivery unreadable; restore undoes that.
func (s *Store) Spoil(k relay.DeliveryKey) (restore func() error, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer s.engine.Leave()
	key := layout.DeliveryKey(k)
	v, _, err := db.Get(key)
	if err != nil {
		return nil, err
	}
	return func() error { return s.Set(key, v) }, set(db, key, []byte("?"))
}

// Set writes into the database, as another program might have.
func (s *Store) Set(key, value []byte) error {
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	return set(db, key, value)
}

func set(db *engine.DB, key, value []byte) error {
	b := db.NewBatch()
	return errors.Join(b.Set(key, value, nil), db.Apply(b, true))
}

// AgeIndex takes from the index what older programs did not write there.
func (s *Store) AgeIndex() error {
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	var keys [][]byte
	for _, prefix := range []string{layout.Ready, layout.Held} {
		if err := db.EachPrefix([]byte(prefix), func(k, _ []byte) (bool, error) {
			keys = append(keys, bytes.Clone(k))
			return true, nil
		}); err != nil {
			return err
		}
	}
	for _, k := range keys {
		if err := set(db, k, nil); err != nil {
			return err
		}
	}
	return nil
}

// Sweeping is the time of a sweep of everything below limit, until done.
func (s *Store) Sweeping(limit relay.MessageID) (done func()) { return s.mail.RefuseBelow(limit) }

// Unsynced is how many outcomes are remembered until they are synced.
func (s *Store) Unsynced() int { return s.mail.Unsynced() }

// Instance is the database as it is open now; another one after a failure.
func (s *Store) Instance() *engine.DB {
	db, err := s.engine.Enter()
	if err == nil {
		s.engine.Leave()
	}
	return db
}
