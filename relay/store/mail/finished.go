package mail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/bodies"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// Message gives a message and its deliveries, waiting and finished.
func (s *Store) Message(_ context.Context, id relay.MessageID) (relay.Message, []relay.Delivery, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return relay.Message{}, nil, err
	}
	defer s.engine.Leave()
	m, err := layout.ReadMessage(db, id)
	if err != nil {
		return m, nil, err
	}
	var ds []relay.Delivery
	err = db.EachPrefix(layout.DeliveriesPrefix(id), func(_, v []byte) (bool, error) {
		d, _, err := layout.DecodeDelivery(v)
		ds = append(ds, d)
		return err == nil, err
	})
	return m, ds, err
}

// finishedChunk is how many records of evidence are gathered at a time, and
// stayChunk how many keys are passed in one stay: the store is not entered
// while somebody else's code runs, nor for as long as a great backlog takes.
const (
	finishedChunk = 256
	stayChunk     = 4096
)

// Finished calls yield with the finished deliveries of an account ("" means
// all) whose messages were accepted at since or later, oldest first.
func (s *Store) Finished(ctx context.Context, who account.ID, since time.Time, yield func(relay.Delivery) bool) error {
	from := layout.MessageKey(layout.IDAt(since))
	for from != nil {
		var chunk []relay.Delivery
		var err error
		if chunk, from, err = s.finished(ctx, who, from); err != nil {
			return err
		}
		for _, d := range chunk {
			if !yield(d) {
				return nil
			}
		}
	}
	return nil
}

func (s *Store) finished(ctx context.Context, who account.ID, from []byte) (got []relay.Delivery, next []byte, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, nil, err
	}
	defer s.engine.Leave()
	passed := 0
	err = db.Each(from, layout.After([]byte(layout.Messages)), func(key, v []byte) (bool, error) {
		if passed++; passed > stayChunk {
			next = bytes.Clone(key)
			return false, nil
		}
		if !layout.IsDelivery(key) {
			return true, nil
		}
		st, err := layout.DecodeState(v)
		if err != nil || !st.Done {
			return err == nil, errors.Join(err, ctx.Err())
		}
		owner, _, err := layout.Owner(v)
		if err != nil || who != "" && owner != who {
			return err == nil, errors.Join(err, ctx.Err())
		}
		d, _, err := layout.DecodeDelivery(v)
		if err != nil {
			return false, err
		}
		got = append(got, d)
		if len(got) == finishedChunk {
			next = append(append(next, key...), 0)
			return false, nil
		}
		return true, ctx.Err()
	})
	return got, next, err
}

// sweepEvery is how often evidence past its retention is removed.
const sweepEvery = time.Hour

func (s *Store) sweepLoop(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.Warn("evidence past its retention could not be removed", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Sweep removes the evidence of messages accepted before now minus the
// retention, but for those that are still queued or have events waiting that need
// their record. Run does it every hour.
func (s *Store) Sweep(ctx context.Context, now time.Time) error {
	limit := layout.IDAt(now.Add(-s.retention))
	if old, err := s.hasBefore(limit); err != nil || !old {
		return err
	}
	defer s.RefuseBelow(limit)()
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	spared, err := neededBefore(ctx, db, limit)
	if err != nil {
		return err
	}
	b := db.NewBatch()
	from := []byte(layout.Messages)
	for _, id := range append(spared, limit) {
		to := layout.MessageKey(id)
		some, err := db.HasAny(from, to)
		if err == nil && some {
			// One tombstone for all up to the next that stays, however many.
			err = b.DeleteRange(from, to, nil)
		}
		if err != nil {
			return err
		}
		from = layout.After(to)
	}
	if err := db.Apply(b, false); err != nil {
		return err
	}
	s.engine.SyncSoon()
	return nil
}

// hasBefore reports whether anything is kept of messages below limit.
func (s *Store) hasBefore(limit relay.MessageID) (bool, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return false, err
	}
	defer s.engine.Leave()
	return db.HasAny([]byte(layout.Messages), layout.MessageKey(limit))
}

// RefuseBelow keeps messages with ids below limit from being accepted until done
// is called: the sweep would remove what it had not seen queued. Their ids are
// taken when their content begins, so one below the limit is of an upload that
// took longer than the retention, or of a clock that was set back by so much.
func (s *Store) RefuseBelow(limit relay.MessageID) (done func()) {
	s.sweeps.Lock()
	set := func(id relay.MessageID) {
		s.engine.Alone(func() { s.sweptTo = id }) // and so after every Accept that did not see it
	}
	set(limit)
	return func() {
		set(relay.MessageID{})
		s.sweeps.Unlock()
	}
}

// errSwept is the error of a message that a sweep under way would remove.
var errSwept = fmt.Errorf("%w: the message began before the oldest evidence that is kept", relay.ErrUnavailable)

// neededBefore gives the messages below limit that are queued, or needed by rows of
// the outbox, in order. All is read as of one moment: what is held or released in
// between would be seen in neither index, and the last events of a message are
// there when it is queued no more.
func neededBefore(ctx context.Context, db *engine.DB, limit relay.MessageID) (ids []relay.MessageID, err error) {
	snap := db.NewSnapshot()
	defer func() { err = errors.Join(err, snap.Close()) }()
	need := func(id relay.MessageID) {
		if bytes.Compare(id[:], limit[:]) < 0 && (len(ids) == 0 || ids[len(ids)-1] != id) {
			ids = append(ids, id)
		}
	}
	for prefix, visit := range map[string]func(key, v []byte) error{
		layout.Ready: func(key, _ []byte) error { return needIndexed(key, need) },
		layout.Held:  func(key, _ []byte) error { return needIndexed(key, need) },
		layout.Outbox: func(_, v []byte) error {
			if r, err := layout.ParseRow(v); err == nil && r.Shared {
				need(r.Message)
			}
			return nil
		},
	} {
		if err := db.EachIn(snap, []byte(prefix), layout.After([]byte(prefix)), func(key, v []byte) (bool, error) {
			err := errors.Join(visit(key, v), ctx.Err())
			return err == nil, err
		}); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(ids, func(a, b relay.MessageID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids), nil
}

// needIndexed needs the message of an index key.
func needIndexed(key []byte, need func(relay.MessageID)) error {
	e, err := layout.ParseIndexKey(key)
	if err == nil {
		need(e.Key.Message)
	}
	return err
}

// Body opens the stored content of a message: relay.ErrNotFound when the
// message has left the queue, relay.ErrNoBody when it is there without it.
func (s *Store) Body(_ context.Context, id relay.MessageID) (relay.Body, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer s.engine.Leave()
	if body, err := s.bodies.Open(id); body != nil || err != nil {
		return body, err
	}
	v, found, err := db.Get(layout.BodyKey(id))
	switch {
	case err != nil:
		return nil, err
	case found:
		return bodies.Inline(v), nil
	}
	queued, err := queues(db, id, func(relay.DeliveryKey) bool { return true })
	switch {
	case err != nil:
		return nil, err
	case queued:
		return nil, fmt.Errorf("%w: %s", relay.ErrNoBody, id)
	}
	return nil, relay.ErrNotFound
}
