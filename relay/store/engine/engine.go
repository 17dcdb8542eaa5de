package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"tlsrelay/relay"
)

// Options are the settings of an [Engine]. All but Dir may be left out.
type Options struct {
	Dir string // the data directory
	FS  vfs.FS // nil: the machine's
	// MinFreeDisk is how many octets must stay free on the disk for mail to be
	// accepted; 0: no bound.
	MinFreeDisk uint64
	// MemTable and Cache are the write buffer and the read cache, in octets;
	// default 16 MiB each.
	MemTable, Cache int64
	Log             *zap.Logger // nil: none
}

// Hooks are what the rooms above do with each instance of the database. A nil hook
// does nothing.
type Hooks struct {
	// Recover puts right what the instance before has left, and loads what is kept
	// in memory. Nobody can enter meanwhile.
	Recover func(*DB) error
	// Replay commits anew what the instance before has lost; it follows Recover
	// when the database is opened again after a failure. Nobody can enter
	// meanwhile.
	Replay func(*DB) error
	// Count counts what there was when the instance was opened, beside the calls of
	// others. It is repeated when it fails and the database is opened again.
	Count func(ctx context.Context, db *DB, at pebble.Reader) error
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.MemTable = cmp.Or(o.MemTable, 16<<20)
	o.Cache = cmp.Or(o.Cache, 16<<20)
	return o
}

// Engine keeps one database open: when an instance of it fails, it opens the next.
// Its methods are safe for concurrent use.
type Engine struct {
	o     Options
	hooks Hooks
	log   *zap.Logger
	fs    vfs.FS
	dir   string // of the database
	lock  *pebble.Lock
	room  room

	// mu guards db: every call holds it for reading while it uses the database, so
	// that a failed one is closed when nobody is in it.
	mu     sync.RWMutex
	db     *DB   // nil while there is none
	cause  error // why there is none
	closed bool

	soon   chan struct{} // something waits for a sync, soon
	urgent chan struct{} // at once
}

var errClosed = errors.New("store: closed")

// New makes an engine, which has nothing open.
func New(o Options) *Engine {
	o = o.withDefaults()
	return &Engine{
		o: o, log: o.Log, fs: o.FS, dir: o.FS.PathJoin(o.Dir, "db"),
		soon: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
	}
}

// Open opens the database, and makes it where there is none. It starts nothing but
// pebble's own goroutines; call [Engine.Run]. It is an error when another process has
// the directory open. Whatever it returns, Close ends the engine.
func (e *Engine) Open(h Hooks) error {
	e.hooks = h
	if err := MakeDir(e.fs, e.dir); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	lock, err := pebble.LockDirectory(e.dir, e.fs)
	if err != nil {
		return fmt.Errorf("store: another process has %s open, or it cannot be locked: %w", e.dir, err)
	}
	e.lock = lock
	e.db, err = e.openWithBallast()
	return err
}

// Run opens the database anew after a failure of the disk, until ctx ends.
func (e *Engine) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { e.ballastLoop(ctx) })
	for {
		e.mu.RLock()
		db := e.db
		e.mu.RUnlock()
		if db == nil {
			return // closed
		}
		wg.Go(func() { e.Count(ctx, db) })
		select {
		case <-ctx.Done():
			return
		case <-db.faults.tripped:
			e.reopen(ctx)
		}
	}
}

// Close ends the engine. What is not synced yet is synced.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed, e.cause = true, errClosed
	var errs []error
	if e.db != nil {
		errs = append(errs, e.db.close())
		e.db = nil
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

// Ready says whether the database can be read and written; nil: it can.
func (e *Engine) Ready() error {
	_, err := e.Enter()
	if err == nil {
		e.Leave()
	}
	return err
}

// Enter gives the database for the length of one call, which ends with Leave.
// A call that has entered must not enter again.
func (e *Engine) Enter() (*DB, error) {
	e.mu.RLock()
	if e.db != nil {
		err := e.db.Failure()
		if err == nil {
			return e.db, nil
		}
		e.mu.RUnlock()
		return nil, err
	}
	defer e.mu.RUnlock()
	return nil, Unavailable(e.cause)
}

// Leave ends what Enter began.
func (e *Engine) Leave() { e.mu.RUnlock() }

// Alone calls f while nobody has entered.
func (e *Engine) Alone(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

// Unavailable says in the words of package relay why nothing can be done:
// relay.ErrNoSpace or relay.ErrUnavailable.
func Unavailable(cause error) error {
	if errors.Is(cause, syscall.ENOSPC) || errors.Is(cause, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", relay.ErrNoSpace, cause)
	}
	return fmt.Errorf("%w: %w", relay.ErrUnavailable, cause)
}

// Count runs Hooks.Count for an instance, once. Run does it by itself.
func (e *Engine) Count(ctx context.Context, db *DB) {
	if e.hooks.Count == nil {
		return
	}
	err := db.count(func(at pebble.Reader) error { return e.hooks.Count(ctx, db, at) })
	if err != nil && ctx.Err() == nil && !db.faults.isTripped() {
		e.log.Error("counting the queue failed; the gauges are wrong", zap.Error(err))
	}
}

// reopen replaces a failed instance by a new one, as often as it takes.
func (e *Engine) reopen(ctx context.Context) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	e.cause = e.db.faults.reason()
	e.log.Error("writing to the store failed; it takes nothing until it can be opened again", zap.Error(e.cause))
	if err := e.db.close(); err != nil {
		e.log.Error("closing the failed store", zap.Error(err))
	}
	e.db = nil
	e.mu.Unlock()

	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 30*time.Second) {
		if e.tryOpen() {
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
// database meanwhile, because there is none to enter.
func (e *Engine) tryOpen() bool {
	db, err := e.openWithBallast()
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil && e.hooks.Replay != nil {
		if err = e.hooks.Replay(db); err != nil {
			err = errors.Join(err, db.close())
			db = nil
		}
	}
	switch {
	case e.closed:
		if db != nil {
			db.close()
		}
		return true
	case err != nil:
		e.log.Error("the store cannot be opened yet", zap.Error(err))
		e.cause = err
		return false
	}
	e.log.Info("the store is open again")
	e.db, e.cause = db, nil
	return true
}

// MakeDir makes a directory where there is none, and its name durable: a
// synced file in a lost directory is lost.
func MakeDir(fs vfs.FS, dir string) error {
	if _, err := fs.Stat(dir); err == nil {
		return nil
	}
	parent := fs.PathDir(dir)
	if parent != dir {
		if err := MakeDir(fs, parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return SyncDir(fs, parent)
}

// SyncDir makes the names in a directory durable.
func SyncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
