package engine

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"go.uber.org/zap"

	"tlsrelay/relay/store/layout"
)

// DB is one instance of the database, from its opening to its failure.
type DB struct {
	db      *pebble.DB
	faults  *faultFS
	splits  Splits
	opening opening
}

// opening is the database as it was when it was opened, kept until what was there has
// been counted.
type opening struct {
	mu   sync.Mutex
	snap *pebble.Snapshot // nil once counted
}

// openDB opens the database, and has Hooks.Recover put right what is there.
func (e *Engine) openDB() (db *DB, err error) {
	faults := newFaultFS(e.fs)
	defer func() {
		// Pebble panics where it sees no way on; here nothing depends on it yet.
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("store: open %s: %v", e.dir, p)
		}
		if reason := faults.reason(); err != nil && reason != nil {
			err = fmt.Errorf("store: open %s: %w", e.dir, reason)
		}
	}()
	cache := pebble.NewCache(e.o.Cache)
	defer cache.Unref() // Open takes a reference of its own
	db = &DB{faults: faults}
	if db.db, err = pebble.Open(e.dir, e.pebbleOptions(db, cache)); err != nil {
		return nil, fmt.Errorf("store: open %s: %w", e.dir, err)
	}
	if err = db.checkVersion(); err == nil && e.hooks.Recover != nil {
		err = e.hooks.Recover(db)
	}
	if err == nil {
		err = db.Failure()
	}
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	db.opening.snap = db.db.NewSnapshot()
	return db, nil
}

func (e *Engine) pebbleOptions(db *DB, cache *pebble.Cache) *pebble.Options {
	o := &pebble.Options{
		FS:    db.faults,
		Lock:  e.lock,
		Cache: cache,
		// Named, not "newest": a newer library must not make a database that
		// the older program cannot read.
		FormatMajorVersion:          pebble.FormatTableFormatV6,
		MemTableSize:                uint64(e.o.MemTable),
		MemTableStopWritesThreshold: 4,
		// Every compaction out of level 0 rewrites the table that the level below
		// ends in: messages in flight straddle the write buffers. Eight buffers
		// at a time instead of four cost a quarter less of the store's CPU.
		L0CompactionThreshold: 8,
		L0StopWritesThreshold: 24,
		Logger:                &logger{e.o.Log.Named("pebble"), db.faults},
	}
	o.Experimental.SpanPolicyFunc = db.splits.policy
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}

// logger passes pebble's log lines on. What pebble calls fatal ends the instance,
// not the process.
type logger struct {
	log    *zap.Logger
	faults *faultFS
}

func (l *logger) Infof(format string, args ...any) { l.log.Sugar().Debugf(format, args...) }

func (l *logger) Errorf(format string, args ...any) {
	if l.faults.isTripped() {
		l.Infof(format, args...) // of an instance that has failed
		return
	}
	l.log.Sugar().Errorf(format, args...)
}

func (l *logger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	l.faults.trip(fmt.Errorf("store: "+format, args...))
}

// Failure is why the instance is no good any more, nil while it is.
func (db *DB) Failure() error {
	if reason := db.faults.reason(); reason != nil {
		return Unavailable(reason)
	}
	return nil
}

// Apply commits a batch; with sync it is on stable storage afterwards. On an
// error it may have happened or not; which, only the next opening shows.
func (db *DB) Apply(b *pebble.Batch, sync bool) error {
	opts := pebble.NoSync
	if sync {
		opts = pebble.Sync
	}
	err := db.db.Apply(b, opts)
	if failed := db.Failure(); failed != nil {
		return failed
	}
	if err != nil {
		return Unavailable(err)
	}
	return b.Close()
}

// Sync makes all that was applied before durable.
func (db *DB) Sync() error {
	err := db.db.LogData(nil, pebble.Sync)
	if failed := db.Failure(); failed != nil {
		return failed
	}
	return err
}

// Get reads one value into a copy; found is false when there is none.
func (db *DB) Get(key []byte) (v []byte, found bool, err error) {
	found, err = db.Read(key, func(got []byte) error {
		v = append(make([]byte, 0, len(got)), got...)
		return nil
	})
	return v, found, err
}

// Read shows one value to visit, which must not keep it; found is false when
// there is none.
func (db *DB) Read(key []byte, visit func(v []byte) error) (found bool, err error) {
	v, closer, err := db.db.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return false, db.Failure()
	case err != nil:
		return false, db.ReadError(err)
	}
	return true, errors.Join(visit(v), closer.Close())
}

// ReadError tells a failed instance from a failed read.
func (db *DB) ReadError(err error) error {
	if failed := db.Failure(); failed != nil {
		return failed
	}
	return Unavailable(err)
}

// Each calls visit with every key from lower to below upper, and its value,
// until it returns false. Both are good only during the call.
func (db *DB) Each(lower, upper []byte, visit func(key, value []byte) (bool, error)) error {
	return db.EachIn(db.db, lower, upper, visit)
}

// EachIn is Each in the database as it is now, or was.
func (db *DB) EachIn(r pebble.Reader, lower, upper []byte, visit func(key, value []byte) (bool, error)) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return db.ReadError(err)
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
		return db.ReadError(err)
	}
	return nil
}

// EachPrefix is Each for all keys that begin with prefix.
func (db *DB) EachPrefix(prefix []byte, visit func(key, value []byte) (bool, error)) error {
	return db.Each(prefix, layout.After(prefix), visit)
}

// close ends the instance; the caller knows that nobody is in it.
func (db *DB) close() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: close: %v", p)
		}
	}()
	db.opening.mu.Lock()
	defer db.opening.mu.Unlock()
	if db.opening.snap != nil {
		err = db.opening.snap.Close()
		db.opening.snap = nil
	}
	err = errors.Join(err, db.db.Close())
	if db.faults.isTripped() {
		return nil // it had failed before, and its callers were told
	}
	return err
}

// HasAny reports whether there is a key from lower to below upper.
func (db *DB) HasAny(lower, upper []byte) (some bool, err error) {
	err = db.Each(lower, upper, func(_, _ []byte) (bool, error) {
		some = true
		return false, nil
	})
	return some, err
}

// NewBatch begins a batch, for Apply.
func (db *DB) NewBatch() *pebble.Batch { return db.db.NewBatch() }

// NewIter reads the keys from lower to below upper.
func (db *DB) NewIter(lower, upper []byte) (*pebble.Iterator, error) {
	it, err := db.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, db.ReadError(err)
	}
	return it, nil
}

// NewSnapshot gives the database as it is now. The caller closes it, before he
// leaves.
func (db *DB) NewSnapshot() *pebble.Snapshot { return db.db.NewSnapshot() }

// Splits says where the tables of the instance end.
func (db *DB) Splits() *Splits { return &db.splits }

// DiskUsage is what the database takes on the disk, in octets.
func (db *DB) DiskUsage() uint64 { return db.db.Metrics().DiskSpaceUsage() }

// count shows the database as it was opened to visit, once.
func (db *DB) count(visit func(at pebble.Reader) error) error {
	db.opening.mu.Lock() // close waits
	defer db.opening.mu.Unlock()
	if db.opening.snap == nil {
		return nil
	}
	if err := visit(db.opening.snap); err != nil {
		return err
	}
	err := db.opening.snap.Close()
	db.opening.snap = nil
	return err
}

// Counted reports whether what was there at the opening has been counted.
func (db *DB) Counted() bool {
	db.opening.mu.Lock()
	defer db.opening.mu.Unlock()
	return db.opening.snap == nil
}
