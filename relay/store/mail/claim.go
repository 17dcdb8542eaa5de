package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// backlogChunk is how many backlogs are gathered before they are yielded: the
// store is not entered while somebody else's code runs.
const backlogChunk = 1024

// Backlogs calls yield for every destination queue and account with anything
// queued. It seeks from one to the next, so its cost is theirs and not that of the
// deliveries in them.
func (s *Store) Backlogs(ctx context.Context, yield func(relay.Backlog) bool) error {
	from := []byte(layout.Ready)
	for from != nil {
		var chunk []relay.Backlog
		var err error
		if chunk, from, err = s.backlogs(ctx, from); err != nil {
			return err
		}
		for _, b := range chunk {
			if !yield(b) {
				return nil
			}
		}
	}
	return nil
}

// backlogs gathers some from key from on; next is where it stopped, nil at
// the end.
func (s *Store) backlogs(ctx context.Context, from []byte) (got []relay.Backlog, next []byte, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, nil, err
	}
	defer s.engine.Leave()
	it, err := db.NewIter(from, layout.After([]byte(layout.Ready)))
	if err != nil {
		return nil, nil, db.ReadError(err)
	}
	for ok := it.First(); ok; ok = it.SeekGE(next) {
		e, err := layout.ParseIndexKey(it.Key())
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, nil, errors.Join(err, it.Close())
		}
		got = append(got, relay.Backlog{Lane: e.Lane, Account: e.Who, Due: e.Due})
		next = layout.After(bytes.Clone(layout.IndexHead(it.Key())))
		if len(got) == backlogChunk {
			return got, next, it.Close()
		}
	}
	if err := it.Close(); err != nil {
		return nil, nil, db.ReadError(err)
	}
	return got, nil, nil
}

// Claim takes up to n deliveries that are due and not in hand, oldest first, and
// records the attempt on each.
//
// The record is not waited for: it is on its way to the disk, next in the
// loop of Run, while the caller still looks up the host. It is there to keep
// a crash loop from storming a receiver, not to keep a promise; when it is
// lost, an attempt goes uncounted.
func (s *Store) Claim(ctx context.Context, lane relay.Lane, who account.ID, now time.Time, n int, lease func(attempts int) time.Time, inHand func(relay.DeliveryKey) bool) (got []relay.Claimed, next time.Time, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, next, err
	}
	defer s.engine.Leave()
	prefix := layout.QueuePrefix(layout.Ready, lane, who)
	front := s.fronts.begin(prefix)
	var first []byte // the first entry left behind

	err = db.Each(front.from, layout.After(prefix), func(key, _ []byte) (bool, error) {
		e, err := layout.ParseIndexKey(key)
		if err != nil {
			return false, err
		}
		if e.Due.After(now) || len(got) >= n {
			if next = e.Due; first == nil {
				first = bytes.Clone(key)
			}
			return false, nil
		}
		if inHand != nil && inHand(e.Key) {
			if first == nil {
				first = bytes.Clone(key)
			}
			return true, ctx.Err()
		}
		c, err := s.claim(db, e, lease)
		if err != nil {
			s.unclaimable(e, err)
			if failed := db.Failure(); failed != nil {
				return false, failed
			}
			if first == nil {
				first = bytes.Clone(key)
			}
			return ctx.Err() == nil, ctx.Err()
		}
		if c != nil {
			got = append(got, *c)
		}
		return true, ctx.Err()
	})
	s.fronts.end(prefix, front, first, err == nil)
	if len(got) > 0 {
		s.engine.SyncNow()
		err = nil // what has been claimed is the caller's
	}
	return got, next, err
}

// unclaimable reports an index entry that leads nowhere; the others of its
// queue go on.
func (s *Store) unclaimable(e layout.IndexEntry, err error) {
	s.log.Error("a queued delivery cannot be claimed", zap.Stringer("delivery", e.Key), zap.Error(err))
}

// claim takes one delivery, nil if it went another way since it was seen.
func (s *Store) claim(db *engine.DB, e layout.IndexEntry, lease func(attempts int) time.Time) (*relay.Claimed, error) {
	defer s.lockMessage(e.Key.Message)()
	v, st, err := waiting(db, e.Key)
	if errors.Is(err, relay.ErrNotFound) {
		return nil, nil
	}
	if err != nil || st.Held || layout.TimeBits(st.Due) != layout.TimeBits(e.Due) {
		return nil, err
	}
	st.Attempts++
	return s.reclaim(db, v, st, lease(st.Attempts))
}

// reclaim gives the delivery recorded in v the attempts of st and a lease.
func (s *Store) reclaim(db *engine.DB, v []byte, st layout.State, lease time.Time) (*relay.Claimed, error) {
	d, was, err := layout.DecodeDelivery(v)
	if err != nil {
		return nil, err
	}
	m, err := layout.ReadMessage(db, d.Key.Message)
	if err != nil {
		return nil, err
	}
	w := s.newWrite(db)
	defer w.close()
	st.Due = lease
	d.Attempts, d.Due = st.Attempts, lease
	err = errors.Join(
		w.unindex(d, was),
		w.index(d),
		w.Set(layout.DeliveryKey(d.Key), layout.WithState(v, st)),
	)
	if err != nil {
		return nil, err
	}
	w.claimed = append(w.claimed, layout.IndexEntry{Key: d.Key, Due: lease})
	if err := w.commit(false); err != nil {
		return nil, err
	}
	return &relay.Claimed{Message: m, Delivery: d}, nil
}

// waiting reads the record of a queued delivery; relay.ErrNotFound when there
// is none, or it has finished.
func waiting(db *engine.DB, k relay.DeliveryKey) (v []byte, st layout.State, err error) {
	v, found, err := db.Get(layout.DeliveryKey(k))
	if found {
		st, err = layout.DecodeState(v)
	}
	return v, st, stillQueued(k, found, st, err)
}

// standing reads the state of a queued delivery, as waiting does, and no more of
// its record than that.
func standing(db *engine.DB, k relay.DeliveryKey) (st layout.State, err error) {
	found, err := db.Read(layout.DeliveryKey(k), func(v []byte) (err error) {
		st, err = layout.DecodeState(v)
		return err
	})
	return st, stillQueued(k, found, st, err)
}

// stillQueued is the error of having read the state of a delivery: err, or
// relay.ErrNotFound when it is not queued.
func stillQueued(k relay.DeliveryKey, found bool, st layout.State, err error) error {
	if err == nil && (!found || st.Done) {
		return fmt.Errorf("%w: delivery %s", relay.ErrNotFound, k)
	}
	return err
}

// queues reports whether a delivery of a message is queued that counts.
func queues(db *engine.DB, id relay.MessageID, counts func(relay.DeliveryKey) bool) (found bool, err error) {
	err = db.EachPrefix(layout.DeliveriesPrefix(id), func(key, v []byte) (bool, error) {
		k, err := layout.ParseDeliveryKey(key)
		found = err == nil && counts(k) && layout.IsQueued(v)
		return err == nil && !found, err
	})
	return found, err
}
