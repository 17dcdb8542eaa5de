package mail

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// syncLoop makes durable what was committed without waiting.
func (s *Store) syncLoop(ctx context.Context) {
	for s.engine.NextSync(ctx) {
		db, err := s.engine.Enter()
		if err != nil {
			continue // nothing can be synced until the database is open again
		}
		outcomes := s.Unsynced()
		if err := db.Sync(); err != nil {
			s.log.Error("sync failed", zap.Error(err))
		} else {
			s.memory.synced(outcomes)
		}
		s.engine.Leave()
	}
}

// Unsynced is how many outcomes are not known to be synced.
func (s *Store) Unsynced() int { return len(s.memory.outcomes()) }

// Replay commits to db what the instance before it had not synced. The engine calls it
// while nobody can enter.
func (s *Store) Replay(db *engine.DB) error {
	lost := s.memory.outcomes()
	if len(lost) == 0 {
		return nil
	}
	for _, t := range lost {
		if err := s.replayOne(db, t); err != nil {
			return err
		}
	}
	if err := db.Sync(); err != nil {
		return err
	}
	s.memory.synced(len(lost))
	return nil
}

func (s *Store) replayOne(db *engine.DB, t relay.Transition) error {
	st, err := standing(db, t.Before.Key)
	switch {
	case errors.Is(err, relay.ErrNotFound):
		return nil // it was synced
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

// takeBack takes out what was not acknowledged and may have been written.
func (s *Store) takeBack(db *engine.DB) error {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	if len(s.memory.unacknowledged) == 0 {
		return nil
	}
	b := db.NewBatch()
	for _, key := range s.memory.unacknowledged {
		if err := b.Delete(key, nil); err != nil {
			return err
		}
	}
	if err := db.Apply(b, true); err != nil {
		return err
	}
	s.memory.unacknowledged = nil
	return nil
}
