package engine

import (
	"context"
	"time"
)

// syncLag is how long what need not wait for stable storage may take to get
// there: the finish of a delivered message. A crash inside that time means a
// second delivery.
const syncLag = 20 * time.Millisecond

// SyncSoon says that something was applied for which nobody waits. It never blocks.
func (e *Engine) SyncSoon() { signal(e.soon) }

// SyncNow says that something was applied that is to be durable at once, though nobody
// waits for it. It never blocks.
func (e *Engine) SyncNow() { signal(e.urgent) }

// NextSync waits until it is time for a sync. It is false when ctx has ended.
func (e *Engine) NextSync(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-e.urgent:
		return true
	case <-e.soon:
	}
	select {
	case <-ctx.Done():
		return false
	case <-e.urgent:
	case <-time.After(syncLag):
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
