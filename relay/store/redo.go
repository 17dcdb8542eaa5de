package store

import (
	"context"
	"errors"
	"slices"
	"sync"

	"go.uber.org/zap"

	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// unsynced are the outcomes that were committed without waiting for stable
// storage, until they have got there. When the database instance fails in
// between they go down with it, and the messages, which have been delivered,
// are queued again: with the next instance they are committed anew.
type unsynced struct {
	mu       sync.Mutex
	outcomes []relay.Transition
}

// maxUnsynced is more than a sync ever lets gather, and bounds the memory of a
// store that is not run.
const maxUnsynced = 1 << 14

func (u *unsynced) add(t relay.Transition) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if t.Done && len(u.outcomes) < maxUnsynced {
		u.outcomes = append(u.outcomes, t)
	}
}

// count is how many there are; the first so many can be dropped after a sync
// that begins now.
func (u *unsynced) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.outcomes)
}

func (u *unsynced) drop(n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.outcomes = slices.Delete(u.outcomes, 0, n)
}

// syncLoop makes durable what was committed without waiting.
func (s *Store) syncLoop(ctx context.Context) {
	for s.engine.NextSync(ctx) {
		db, err := s.engine.Enter()
		if err != nil {
			continue // nothing can be synced, and whatever was is known
		}
		outcomes := s.unsynced.count()
		if err := db.Sync(); err != nil {
			s.log.Error("sync failed", zap.Error(err))
		} else {
			s.unsynced.drop(outcomes)
		}
		s.engine.Leave()
	}
}

// redo commits to db what its predecessor had not synced. The caller sees to
// it that nobody is in the store.
func (s *Store) redo(db *engine.DB) error {
	s.unsynced.mu.Lock()
	lost := slices.Clone(s.unsynced.outcomes)
	s.unsynced.mu.Unlock()
	if len(lost) == 0 {
		return nil
	}
	for _, t := range lost {
		if err := s.redoOne(db, t); err != nil {
			return err
		}
	}
	if err := db.Sync(); err != nil {
		return err
	}
	s.unsynced.drop(len(lost))
	return nil
}

func (s *Store) redoOne(db *engine.DB, t relay.Transition) error {
	st, err := standing(db, t.Before.Key)
	switch {
	case errors.Is(err, relay.ErrNotFound):
		return nil // it had got there
	case errors.Is(err, layout.ErrRecord):
		s.log.Error("a delivered message stays queued", zap.Stringer("delivery", t.Before.Key), zap.Error(err))
		return nil // one bad record must not keep the store shut
	}
	if err != nil {
		return err
	}
	w := s.newWrite(db)
	defer w.close()
	if err := w.unindex(t.Before, st); err != nil {
		return err
	}
	if _, err := w.apply(t, false); err != nil {
		return err
	}
	return w.commit(false)
}
