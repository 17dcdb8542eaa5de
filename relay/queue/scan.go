package queue

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tlsrelay/relay"
)

const (
	// scanShare bounds the time that is spent on scans, to one part in so many.
	scanShare = 10
	// scanBatch is how many backlogs the loop is told of at a time.
	scanBatch = 256
)

// scan asks the store what is queued: at the start, every Options.Rescan, and
// when somebody calls for it. Delivery begins with the first queue found. It runs
// beside the loop until ctx ends.
func (s *scheduler) scan(ctx context.Context) {
	for {
		begun := time.Now()
		if err := s.scanOnce(ctx); err != nil && ctx.Err() == nil {
			s.q.log.Error("cannot read the backlogs", zap.Error(err))
		}
		// A scan that takes long is made less often.
		took := time.Since(begun)
		pause := max(s.o.Rescan, scanShare*took)
		s.setHorizon(ctx, 2*(pause+took))
		next := time.NewTimer(pause)
		select {
		case <-next.C:
		case <-s.rescan:
			next.Stop()
		case <-ctx.Done():
			next.Stop()
			return
		}
	}
}

// setHorizon has the loop keep in memory what is due within a time. Another scan
// finds the rest before it is due.
func (s *scheduler) setHorizon(ctx context.Context, horizon time.Duration) {
	select {
	case s.calls <- func(now time.Time) { s.horizon = horizon; s.forget(now) }:
	case <-ctx.Done():
	}
}

func (s *scheduler) scanOnce(ctx context.Context) error {
	var batch []relay.Backlog
	flush := func() bool {
		select {
		case s.backlogs <- batch:
			batch = nil
			return true
		case <-ctx.Done():
			return false
		}
	}
	err := s.q.store.Backlogs(ctx, func(b relay.Backlog) bool {
		batch = append(batch, b)
		return len(batch) < scanBatch || flush()
	})
	if len(batch) > 0 {
		flush()
	}
	return err
}
