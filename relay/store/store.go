package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

var (
	_ relay.Store           = (*Store)(nil)
	_ relay.Operator        = (*Store)(nil)
	_ account.Store         = (*Store)(nil)
	_ account.OverrideStore = (*Store)(nil)
	_ webhook.Outbox        = (*Store)(nil)
	_ webhook.Store         = (*Store)(nil)
	_ events.BlockStore     = (*Store)(nil)
)

// Options are the settings of a [Store]; only Dir must be set.
type Options struct {
	// Dir is the data directory; the store makes "db" and "spool" in it.
	Dir string
	// FS is the file system, for tests; nil: the machine's.
	FS vfs.FS
	// MinFreeDisk is how many octets must stay free on the disk for a message
	// to be accepted: room to finish what has been promised. 0: no bound.
	MinFreeDisk uint64
	// MaxWaiting and MaxDestinations are how many recipients an account may have
	// waiting, and for how many destinations; 0: no bound.
	MaxWaiting, MaxDestinations int
	// MaxEvents is how many octets of events an account may have waiting, all its
	// endpoints together, before its oldest are given up; default 512 MiB.
	MaxEvents int64
	// Retention is how long evidence is kept, from the acceptance of its
	// message on; default 720 h.
	Retention time.Duration
	// MemTable and Cache are the database's write buffer (up to four of them
	// while the disk is slow) and its read cache, in octets; default 16 MiB
	// each.
	MemTable, Cache int64

	Log        *zap.Logger           // nil: none
	Registerer prometheus.Registerer // nil: no metrics
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.MaxEvents = cmp.Or(o.MaxEvents, defaultMaxEvents)
	o.Retention = cmp.Or(o.Retention, 720*time.Hour)
	o.MemTable = cmp.Or(o.MemTable, 16<<20)
	o.Cache = cmp.Or(o.Cache, 16<<20)
	return o
}

// Store is the embedded store. Its methods are safe for concurrent use. Once
// [Store.Close] was called they return relay.ErrUnavailable.
type Store struct {
	o     Options
	log   *zap.Logger
	fs    vfs.FS
	db    string // directory of the database
	spool string // directory of large bodies
	lock  *pebble.Lock

	bounds bounds
	room   room

	// mu guards engine: every call holds it for reading while it uses the
	// database, so that a failed one is closed when nobody is in it.
	mu     sync.RWMutex
	engine *engine // nil while there is none
	cause  error   // why there is none
	closed bool
	// sweptTo refuses messages below it, see sweeping.
	sweptTo relay.MessageID

	stripes   [1024]sync.Mutex // of messages, see lockMessage
	flight    flight
	lows      lows
	tickets   tickets
	spooled   spooled
	drafts    drafts
	warm      warm
	doubts    doubts
	unsure    unsure
	unsynced  unsynced
	mem       memory
	collector *collector       // nil without metrics
	sweeps    sync.Mutex       // one at a time
	blocking  [1024]sync.Mutex // of accounts, see lockBlocks
	removing  sync.Mutex       // serialises those who remove rows of the outbox
	writing   sync.Mutex       // serialises writers of accounts, keys, endpoints and overrides

	soon     chan struct{} // something waits for a sync, soon
	urgent   chan struct{} // at once
	overfull chan struct{} // an account has too many events waiting
}

var errClosed = errors.New("store: closed")

// Open opens the store in o.Dir, and makes it where there is none. It starts
// nothing but pebble's own goroutines; call [Store.Run]. It is an error when
// another process has the directory open.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{
		o: o, log: o.Log, fs: o.FS,
		db: o.FS.PathJoin(o.Dir, "db"), spool: o.FS.PathJoin(o.Dir, "spool"),
		soon: make(chan struct{}, 1), urgent: make(chan struct{}, 1), overfull: make(chan struct{}, 1),
	}
	s.bounds.log, s.bounds.recipients, s.bounds.destinations = o.Log, o.MaxWaiting, o.MaxDestinations
	for _, dir := range []string{s.db, s.spool} {
		if err := s.makeDir(dir); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	lock, err := pebble.LockDirectory(s.db, s.fs)
	if err != nil {
		return nil, fmt.Errorf("store: another process has %s open, or it cannot be locked: %w", s.db, err)
	}
	s.lock = lock
	if s.engine, err = s.openWithBallast(); err == nil {
		err = s.sweepDrafts()
	}
	if err == nil {
		err = s.register(o.Registerer)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Run syncs what was written without waiting, reopens the database after a
// failure of the disk, and ends evidence past its retention, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { s.syncLoop(ctx) })
	wg.Go(func() { s.sweepLoop(ctx) })
	wg.Go(func() { s.shedLoop(ctx) })
	wg.Go(func() { s.ballastLoop(ctx) })
	for {
		s.mu.RLock()
		en := s.engine
		s.mu.RUnlock()
		if en == nil {
			return nil // closed
		}
		wg.Go(func() { s.count(ctx, en) })
		select {
		case <-ctx.Done():
			return nil
		case <-en.fence.tripped:
			s.reopen(ctx)
		}
	}
}

// Close ends the store. What Run has not synced yet is synced.
func (s *Store) Close() error {
	// Before the lock: to unregister, the collector is asked what it collects,
	// and that enters the store.
	s.unregister(s.o.Registerer)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed, s.cause = true, errClosed
	var errs []error
	if s.engine != nil {
		errs = append(errs, s.engine.close())
		s.engine = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// Ready says whether the store can read and write; nil: it can.
func (s *Store) Ready() error {
	_, err := s.enter()
	if err == nil {
		s.leave()
	}
	return err
}

// enter gives the database for the length of one call, which ends with leave.
// A call that has entered must not enter again.
func (s *Store) enter() (*engine, error) {
	s.mu.RLock()
	if s.engine != nil {
		err := s.engine.failure()
		if err == nil {
			return s.engine, nil
		}
		s.mu.RUnlock()
		return nil, err
	}
	defer s.mu.RUnlock()
	return nil, unavailable(s.cause)
}

func (s *Store) leave() { s.mu.RUnlock() }

// unavailable says in the words of package relay why nothing can be done.
func unavailable(cause error) error {
	if errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", relay.ErrNoSpace, cause)
	}
	return fmt.Errorf("%w: %w", relay.ErrUnavailable, cause)
}

// lockMessage keeps all but one from changing a message's deliveries.
// Different messages may share a stripe, so nobody takes two.
func (s *Store) lockMessage(id relay.MessageID) (unlock func()) {
	mu := &s.stripes[(uint(id[14])<<8|uint(id[15]))%uint(len(s.stripes))]
	mu.Lock()
	return mu.Unlock
}

// lockBlocks keeps all but one from changing an account's block rows. It is held until
// they are synced, so that accounts do not share it, but by chance. Nobody takes two.
func (s *Store) lockBlocks(account string) (unlock func()) {
	mu := &s.blocking[maphash.String(blockSeed, account)%uint64(len(s.blocking))]
	mu.Lock()
	return mu.Unlock
}

var blockSeed = maphash.MakeSeed()

// makeDir makes a directory where there is none, and its name durable: a
// synced file in a lost directory is lost.
func (s *Store) makeDir(dir string) error {
	if _, err := s.fs.Stat(dir); err == nil {
		return nil
	}
	parent := s.fs.PathDir(dir)
	if parent != dir {
		if err := s.makeDir(parent); err != nil {
			return err
		}
	}
	if err := s.fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return s.syncDir(parent)
}

func (s *Store) syncDir(dir string) error {
	d, err := s.fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
