package mail

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/relay"
	"tlsrelay/relay/store/bodies"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/outbox"
	"tlsrelay/relay/store/tally"
	"tlsrelay/relay/store/tenants"
)

// Options are the rooms that a [Store] stands on. All must be set but Log.
type Options struct {
	Engine  *engine.Engine
	Bodies  *bodies.Bodies
	Tally   *tally.Tally
	Tenants *tenants.Tenants
	Outbox  *outbox.Outbox
	// Retention is how long evidence is kept, from the acceptance of its message on.
	Retention time.Duration
	Log       *zap.Logger
}

// Store keeps the queue. Its methods are safe for concurrent use.
type Store struct {
	engine    *engine.Engine
	bodies    *bodies.Bodies
	tally     *tally.Tally
	tenants   *tenants.Tenants
	outbox    *outbox.Outbox
	retention time.Duration
	log       *zap.Logger

	stripes [1024]sync.Mutex // of messages, see lockMessage
	memory  memory
	fronts  fronts
	sweeps  sync.Mutex // one at a time
	// sweptTo refuses messages below it, see RefuseBelow.
	sweptTo relay.MessageID
}

// New makes the room.
func New(o Options) *Store {
	return &Store{
		engine: o.Engine, bodies: o.Bodies, tally: o.Tally, tenants: o.Tenants, outbox: o.Outbox,
		retention: o.Retention, log: o.Log, memory: newMemory(),
	}
}

// Recover takes out of a new instance of the database what was not acknowledged.
func (s *Store) Recover(db *engine.DB) error {
	s.fronts.forget() // what was claimed and not yet on the disk is back in its place
	return s.takeBack(db)
}

// Run syncs what was committed without waiting, and ends evidence past its retention,
// until ctx ends.
func (s *Store) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.syncLoop(ctx) })
	s.sweepLoop(ctx)
}

// lockMessage keeps all but one from changing a message's deliveries.
// Different messages may share a stripe, so nobody takes two.
func (s *Store) lockMessage(id relay.MessageID) (unlock func()) {
	mu := &s.stripes[(uint(id[14])<<8|uint(id[15]))%uint(len(s.stripes))]
	mu.Lock()
	return mu.Unlock
}
