package store

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// Message gives a message and its deliveries, waiting and finished.
func (s *Store) Message(_ context.Context, id relay.MessageID) (relay.Message, []relay.Delivery, error) {
	en, err := s.enter()
	if err != nil {
		return relay.Message{}, nil, err
	}
	defer s.leave()
	// So that no delivery is seen on neither side while it ends.
	defer s.lockMessage(id)()
	m, err := en.message(pMessage, id)
	if errors.Is(err, relay.ErrNotFound) {
		m, err = en.message(pEvidence, id)
	}
	if err != nil {
		return m, nil, err
	}
	var ds []relay.Delivery
	for _, part := range []struct {
		prefix string
		decode func([]byte) (relay.Delivery, error)
	}{{pDelivery, decodeDelivery}, {pEvidence, decodeFinished}} {
		err := en.eachPrefix(messageKey(part.prefix, id), func(key, v []byte) (bool, error) {
			if isEnded(key) {
				return true, nil
			}
			d, err := part.decode(v)
			ds = append(ds, d)
			return err == nil, err
		})
		if err != nil {
			return m, nil, err
		}
	}
	slices.SortFunc(ds, func(a, b relay.Delivery) int { return cmp.Compare(a.Key.Number, b.Key.Number) })
	return m, ds, nil
}

// finishedChunk is how many records of evidence are read at a time: the store
// is not entered while somebody else's code runs.
const finishedChunk = 256

// Finished calls yield with the finished deliveries of an account ("" means
// all) whose messages were accepted at since or later, oldest first.
func (s *Store) Finished(ctx context.Context, who account.ID, since time.Time, yield func(relay.Delivery) bool) error {
	from := messageKey(pEvidence, idAt(since))
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
	en, err := s.enter()
	if err != nil {
		return nil, nil, err
	}
	defer s.leave()
	err = en.each(from, after([]byte(pEvidence)), func(key, v []byte) (bool, error) {
		if isEnded(key) {
			return true, nil
		}
		owner, _, err := splitFinished(v)
		if err != nil || who != "" && owner != who {
			return err == nil && ctx.Err() == nil, errors.Join(err, ctx.Err())
		}
		d, err := decodeFinished(v)
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
// retention. Run does it every hour.
func (s *Store) Sweep(_ context.Context, now time.Time) error {
	en, err := s.enter()
	if err != nil {
		return err
	}
	defer s.leave()
	lower, upper := []byte(pEvidence), messageKey(pEvidence, idAt(now.Add(-s.o.Retention)))
	some := false
	if err := en.each(lower, upper, func(_, _ []byte) (bool, error) {
		some = true
		return false, nil
	}); err != nil || !some {
		return err
	}
	// One tombstone for all, however many they are.
	b := en.db.NewBatch()
	if err := b.DeleteRange(lower, upper, nil); err != nil {
		return err
	}
	if err := en.apply(b, false); err != nil {
		return err
	}
	signal(s.soon)
	return nil
}
