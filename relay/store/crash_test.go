package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tlsrelay/relay"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

const dataDir = "/var/data"

// disk is a disk that loses what was not synced, and does something at its
// n-th write.
type disk struct {
	*vfs.MemFS
	fs vfs.FS

	mu     sync.Mutex
	writes int
	at     int
	do     func() error
}

func newDisk() *disk {
	d := &disk{MemFS: vfs.NewCrashableMem(), at: -1}
	d.fs = errorfs.Wrap(d.MemFS, errorfs.InjectorFunc(d.inject))
	return d
}

func (d *disk) inject(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	d.mu.Lock()
	d.writes++
	hit, do := d.at >= 0 && d.writes >= d.at, d.do
	d.mu.Unlock()
	if hit && do != nil {
		return do()
	}
	return nil
}

// plan has do called at every write from the n-th of now on.
func (d *disk) plan(n int, do func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.do = d.writes+n, do
}

// count is how many writes there were.
func (d *disk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writes
}

func options(fs vfs.FS) store.Options {
	// Small, so that logs are rotated and tables written within the story.
	return store.Options{Dir: dataDir, FS: fs, MemTable: 256 << 10, Cache: 1 << 20}
}

// running is a store with its Run.
type running struct {
	*store.Store
	t      *testing.T
	cancel func()
	ended  chan error
}

func run(t *testing.T, fs vfs.FS) *running {
	t.Helper()
	return runWith(t, options(fs))
}

func runWith(t *testing.T, o store.Options) *running {
	t.Helper()
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{s, t, cancel, make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	return r
}

// stop ends it, without an error where it is well.
func (r *running) stop() error {
	r.cancel()
	return errors.Join(<-r.ended, r.Close())
}

// ready waits until the store has found back.
func (r *running) ready() {
	r.t.Helper()
	for start := time.Now(); r.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			r.t.Fatal("the store does not come back: ", r.Ready())
		}
	}
}

// once fails the next write of a disk, no more; before it does it waits for
// what, if that is not nil.
func (d *disk) once(what <-chan struct{}) {
	var done atomic.Bool
	d.plan(1, func() error {
		if done.Swap(true) {
			return nil
		}
		if what != nil {
			<-what
		}
		return syscall.ENOSPC
	})
}

// reopened waits until another instance than old is open and well.
func (r *running) reopened(old any) {
	r.t.Helper()
	for start := time.Now(); r.Instance() == old || r.Ready() != nil; time.Sleep(time.Millisecond) {
		if time.Since(start) > 20*time.Second {
			r.t.Fatal("the store was not opened again: ", r.Ready())
		}
	}
}

// check compares a store with what was promised.
func check(t *testing.T, w *storetest.World, s *store.Store, unmade bool) {
	t.Helper()
	if err := errors.Join(s.Verify(), w.Check(t.Context(), s, unmade)); err != nil {
		t.Fatal(err)
	}
}

// checkAfterCrash opens what is left on a disk, and works on with it.
func checkAfterCrash(t *testing.T, w *storetest.World, fs vfs.FS) {
	t.Helper()
	s := run(t, fs)
	check(t, w, s.Store, false)
	queueOne(t, s.Store, nil)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// writesOf is how many writes the story takes.
func writesOf(t *testing.T) int {
	d := newDisk()
	s := run(t, d.fs)
	before := d.count()
	w := storetest.NewWorld(time.Now())
	w.Play(t.Context(), s.Store)
	writes := d.count() - before
	check(t, w, s.Store, true)
	if w.Accepted() != 7 {
		t.Fatalf("accepted %d messages", w.Accepted())
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	return writes
}

// The power is cut before each write of the story, and the disk has kept
// nothing, all or some of what was not synced.
func TestPowerCut(t *testing.T) {
	for n := range writesOf(t) {
		for _, kept := range [][]int{{0, 50}, {100}}[n%2] {
			d := newDisk()
			s := run(t, d.fs)
			w := storetest.NewWorld(time.Now())
			var once sync.Once
			var promised *storetest.World
			var left *vfs.MemFS
			d.plan(n, func() error {
				once.Do(func() {
					promised = w.Promised()
					left = d.CrashClone(vfs.CrashCloneCfg{
						UnsyncedDataPercent: kept, RNG: rand.New(rand.NewPCG(uint64(n), uint64(kept))),
					})
				})
				return nil
			})
			w.Play(t.Context(), s.Store)
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			if left == nil {
				continue // timing: the story took fewer writes
			}
			t.Run(fmt.Sprintf("write %d, %d%% kept", n, kept), func(t *testing.T) { checkAfterCrash(t, promised, left) })
		}
	}
}

var errBroken = errors.New("input/output error")

// One write fails. The store goes on by itself, nothing it promised is
// missing and nothing it refused is there; and then the power is cut.
func TestWriteError(t *testing.T) {
	for n := range writesOf(t) {
		t.Run(fmt.Sprint("write ", n), func(t *testing.T) {
			d := newDisk()
			s := run(t, d.fs)
			w := storetest.NewWorld(time.Now())
			var once sync.Once
			d.plan(n, func() (err error) {
				once.Do(func() { err = errBroken })
				return err
			})
			w.Play(t.Context(), s.Store)
			d.plan(0, nil) // the story may have taken fewer writes
			s.ready()
			check(t, w, s.Store, true)
			before := w.Accepted()
			w.Play(t.Context(), s.Store)
			s.ready()
			check(t, w, s.Store, true)
			if w.Accepted() != before+7 {
				t.Fatalf("%d messages accepted, then %d", before, w.Accepted())
			}
			left := d.CrashClone(vfs.CrashCloneCfg{})
			promised := w.Promised()
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			checkAfterCrash(t, promised, left)
		})
	}
}

// The disk fills up and stays full for a while. What cannot be kept is
// refused in words that submission turns into 452, and all goes on when
// there is room again.
func TestDiskFull(t *testing.T) {
	for n := 0; n < writesOf(t); n += 5 {
		t.Run(fmt.Sprint("write ", n), func(t *testing.T) {
			d := newDisk()
			s := run(t, d.fs)
			w := storetest.NewWorld(time.Now())
			d.plan(n, func() error { return syscall.ENOSPC })
			w.Play(t.Context(), s.Store)
			d.plan(0, func() error { return syscall.ENOSPC })
			m, ds := storetest.NewMessage(time.Now(), "a@example.com")
			if err := storetest.Accept(t.Context(), s.Store, m, ds, []byte("x")); !errors.Is(err, relay.ErrNoSpace) {
				t.Fatalf("accepted on a full disk: %v", err)
			}
			if err := s.Ready(); !errors.Is(err, relay.ErrNoSpace) {
				t.Fatalf("ready on a full disk: %v", err)
			}
			d.plan(0, nil)
			s.ready()
			check(t, w, s.Store, true)
			w.Play(t.Context(), s.Store)
			check(t, w, s.Store, true)
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
