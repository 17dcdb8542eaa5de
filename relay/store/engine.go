package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"go.uber.org/zap"

	"tlsrelay/relay"
	"tlsrelay/relay/store/layout"
)

// engine is one instance of the database, from its opening to its failure.
type engine struct {
	db    *pebble.DB
	fence *fence
	tally tally
	boxes boxes
	depth depth
}

// depth is how much is queued: what was there at the opening, counted in the
// background, and what has changed since.
type depth struct {
	mu       sync.Mutex
	start    *pebble.Snapshot // nil once counted
	messages atomic.Int64
	waiting  atomic.Int64 // deliveries in the ready index
	held     atomic.Int64
}

// openEngine opens the database and reads what is kept in memory.
func (s *Store) openEngine() (en *engine, err error) {
	fence := newFence(s.fs)
	defer func() {
		// Pebble panics where it sees no way on; here nothing depends on it yet.
		if p := recover(); p != nil {
			en, err = nil, fmt.Errorf("store: open %s: %v", s.db, p)
		}
		if reason := fence.reason(); err != nil && reason != nil {
			err = fmt.Errorf("store: open %s: %w", s.db, reason)
		}
	}()
	cache := pebble.NewCache(s.o.Cache)
	defer cache.Unref() // Open takes a reference of its own
	en = &engine{fence: fence, boxes: boxes{bound: s.o.MaxEvents}}
	if en.db, err = pebble.Open(s.db, s.pebbleOptions(en, cache)); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", s.db, err)
	}
	if err = s.recoverFrom(en); err == nil {
		err = en.failure()
	}
	if err != nil {
		return nil, errors.Join(err, en.close())
	}
	en.depth.start = en.db.NewSnapshot()
	return en, nil
}

// recoverFrom puts the database right after whatever came before, and loads
// what is kept in memory.
func (s *Store) recoverFrom(en *engine) error {
	if err := s.checkLayout(en); err != nil {
		return err
	}
	if err := s.settleDoubts(en); err != nil {
		return err
	}
	s.lows.forget() // what was claimed and not yet on the disk is back in its place
	if err := s.loadMemory(en); err != nil {
		return err
	}
	return s.sweepSpool(en)
}

func (s *Store) pebbleOptions(en *engine, cache *pebble.Cache) *pebble.Options {
	o := &pebble.Options{
		FS:    en.fence,
		Lock:  s.lock,
		Cache: cache,
		// Named, not "newest": a newer library must not make a database that
		// the older program cannot read.
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		MemTableSize:                uint64(s.o.MemTable),
		MemTableStopWritesThreshold: 4,
		// Every compaction out of level 0 rewrites the table that the level below
		// ends in: messages in flight straddle the write buffers. Eight buffers
		// at a time instead of four cost a quarter less of the store's CPU.
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 24,
		Logger:                &logger{s.log.Named("pebble"), en.fence},
	}
	o.Experimental.SpanPolicyFunc = en.tally.cuts.policy
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// logger passes pebble's words on. What pebble calls fatal ends the instance,
// not the process.
type logger struct {
	log   *zap.Logger
	fence *fence
}

func (l *logger) Infof(format string, args ...any) { l.log.Sugar().Debugf(format, args...) }

func (l *logger) Errorf(format string, args ...any) {
	if l.fence.isTripped() {
		l.Infof(format, args...) // the words of an instance that is no more
		return
	}
	l.log.Sugar().Errorf(format, args...)
}

func (l *logger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	l.fence.trip(fmt.Errorf("store: "+format, args...))
}

// failure is why the instance is no good any more, nil while it is.
func (en *engine) failure() error {
	if reason := en.fence.reason(); reason != nil {
		return unavailable(reason)
	}
	return nil
}

// apply commits a batch; with sync it is on stable storage afterwards. On an
// error it may have happened or not; which, only the next opening shows.
func (en *engine) apply(b *pebble.Batch, sync bool) error {
	opts := pebble.NoSync
	if sync {
		opts = pebble.Sync
	}
	err := en.db.Apply(b, opts)
	if failed := en.failure(); failed != nil {
		return failed
	}
	if err != nil {
		return unavailable(err)
	}
	return b.Close()
}

// sync makes all that was applied before durable.
func (en *engine) sync() error {
	err := en.db.LogData(nil, pebble.Sync)
	if failed := en.failure(); failed != nil {
		return failed
	}
	return err
}

// get reads one value into a copy; found is false when there is none.
func (en *engine) get(key []byte) (v []byte, found bool, err error) {
	found, err = en.read(key, func(got []byte) error {
		v = append(make([]byte, 0, len(got)), got...)
		return nil
	})
	return v, found, err
}

// read shows one value to visit, which must not keep it; found is false when
// there is none.
func (en *engine) read(key []byte, visit func(v []byte) error) (found bool, err error) {
	v, closer, err := en.db.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return false, en.failure()
	case err != nil:
		return false, en.readError(err)
	}
	return true, errors.Join(visit(v), closer.Close())
}

// readError tells a failed instance from a failed read.
func (en *engine) readError(err error) error {
	if failed := en.failure(); failed != nil {
		return failed
	}
	return unavailable(err)
}

// each calls visit with every key from lower to below upper, and its value,
// until it returns false. Both are good only during the call.
func (en *engine) each(lower, upper []byte, visit func(key, value []byte) (bool, error)) error {
	return en.eachIn(en.db, lower, upper, visit)
}

// eachIn is each in the database as it is now, or was.
func (en *engine) eachIn(r pebble.Reader, lower, upper []byte, visit func(key, value []byte) (bool, error)) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return en.readError(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		more := false
		if err == nil {
			more, err = visit(it.Key(), v)
		}
		if err != nil {
			return errors.Join(err, it.Close())
		}
		if !more {
			break
		}
	}
	if err := it.Close(); err != nil {
		return en.readError(err)
	}
	return nil
}

// eachPrefix is each for all keys that begin with prefix.
func (en *engine) eachPrefix(prefix []byte, visit func(key, value []byte) (bool, error)) error {
	return en.each(prefix, layout.After(prefix), visit)
}

// close ends the instance; the caller knows that nobody is in it.
func (en *engine) close() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: close: %v", p)
		}
	}()
	en.depth.mu.Lock()
	defer en.depth.mu.Unlock()
	if en.depth.start != nil {
		err = en.depth.start.Close()
		en.depth.start = nil
	}
	err = errors.Join(err, en.db.Close())
	if en.fence.isTripped() {
		return nil // it had failed before, and whoever was hurt knows
	}
	return err
}

// count adds what was queued at the opening to the depth, and what was in the outbox
// to the boxes.
func (s *Store) count(ctx context.Context, en *engine) {
	en.depth.mu.Lock() // close waits
	defer en.depth.mu.Unlock()
	snap := en.depth.start
	if snap == nil {
		return
	}
	err := en.countIndex(ctx, snap, layout.Ready, &en.depth.waiting)
	if err == nil {
		err = en.countIndex(ctx, snap, layout.Held, &en.depth.held)
	}
	if err == nil {
		err = s.countOutbox(ctx, en, snap)
	}
	if err != nil {
		if ctx.Err() == nil && !en.fence.isTripped() {
			s.log.Error("counting the queue failed; the gauges are wrong", zap.Error(err))
		}
		return
	}
	en.depth.start = nil
	if err := snap.Close(); err != nil {
		s.log.Error("counting the queue failed", zap.Error(err))
	}
}

// countIndex counts the deliveries of one index, and the messages whose first
// queued delivery is among them.
func (en *engine) countIndex(ctx context.Context, snap *pebble.Snapshot, prefix string, to *atomic.Int64) error {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: layout.After([]byte(prefix))})
	if err != nil {
		return err
	}
	var run move // of one destination and account
	var n, messages int64
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var e layout.IndexEntry
		if e, err = layout.ParseIndexKey(it.Key()); err != nil {
			break
		}
		if e.Lane.Destination != run.destination || e.Who != run.who {
			en.tally.add(run)
			run = move{who: e.Who, destination: e.Lane.Destination}
		}
		var first bool
		if first, err = isFirst(snap, e.Key); first {
			messages++
			run.octets += sizeOf(snap, e.Key.Message)
		}
		run.entries++
		run.recipients += recipientsOf(snap, it, e.Key)
		if n++; n%4096 == 0 && err == nil {
			err = cmp.Or(ctx.Err(), en.failure())
		}
	}
	en.tally.add(run)
	to.Add(n)
	en.depth.messages.Add(messages)
	return errors.Join(err, it.Close())
}

// recipientsOf gives how many recipients the index entry that it stands at counts
// for. One of an older program does not say.
func recipientsOf(r pebble.Reader, it *pebble.Iterator, k relay.DeliveryKey) int {
	if v, err := it.ValueAndErr(); err == nil {
		if n, known := layout.ParseIndexValue(v); known {
			return n
		}
	}
	v, closer, err := r.Get(layout.DeliveryKey(k))
	if err != nil {
		return 0 // whoever wants the delivery will say so
	}
	defer closer.Close()
	d, _, _ := layout.DecodeDelivery(v)
	return layout.WaitingRecipients(&d)
}

// sizeOf gives the octets of a message's body.
func sizeOf(r pebble.Reader, id relay.MessageID) int64 {
	v, closer, err := r.Get(layout.MessageKey(id))
	if err != nil {
		return 0 // whoever wants the message will say so
	}
	defer closer.Close()
	m, _ := layout.Decode[relay.Message](v)
	return m.Size
}

// isFirst reports whether no delivery of the message with a lower number is
// queued.
func isFirst(r pebble.Reader, k relay.DeliveryKey) (bool, error) {
	for n := range k.Number {
		v, closer, err := r.Get(layout.DeliveryKey(relay.DeliveryKey{Message: k.Message, Number: n}))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		queued := isQueued(v)
		if err := closer.Close(); err != nil || queued {
			return false, err
		}
	}
	return true, nil
}

// reopen replaces a failed instance by a new one, as often as it takes.
func (s *Store) reopen(ctx context.Context) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.cause = s.engine.fence.reason()
	s.log.Error("writing to the store failed; it takes nothing until it can be opened again", zap.Error(s.cause))
	if err := s.engine.close(); err != nil {
		s.log.Error("closing the failed store", zap.Error(err))
	}
	s.engine = nil
	s.mu.Unlock()

	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
		if s.tryOpen() {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// tryOpen reports whether there is nothing left to do. Nobody is in the
// store meanwhile, because there is no engine to enter.
func (s *Store) tryOpen() bool {
	en, err := s.openWithBallast()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if err = s.redo(en); err != nil {
			err = errors.Join(err, en.close())
			en = nil
		}
	}
	switch {
	case s.closed:
		if en != nil {
			en.close()
		}
		return true
	case err != nil:
		s.log.Error("the store cannot be opened yet", zap.Error(err))
		s.cause = err
		return false
	}
	s.log.Info("the store is open again")
	s.engine, s.cause = en, nil
	return true
}

// syncLag is how long what need not wait for stable storage may take to get
// there: the finish of a delivered message. A crash inside that time means a
// second delivery.
const syncLag = 20 * time.Millisecond

// syncLoop makes durable what was committed without waiting.
func (s *Store) syncLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.urgent:
		case <-s.soon:
			select {
			case <-ctx.Done():
				return
			case <-s.urgent:
			case <-time.After(syncLag):
			}
		}
		en, err := s.enter()
		if err != nil {
			continue // nothing can be synced, and whatever was is known
		}
		outcomes := s.unsynced.count()
		if err := en.sync(); err != nil {
			s.log.Error("sync failed", zap.Error(err))
		} else {
			s.unsynced.drop(outcomes)
		}
		s.leave()
	}
}

// signal wakes the sync loop; it never blocks.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
