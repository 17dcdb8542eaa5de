package store_test

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tlsrelay/relay"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

// The disk is full when the store is opened: it is opened with the room that was kept
// for that, and the room is kept anew when there is any. What failed openings leave
// behind goes, and nothing else.
func TestBallast(t *testing.T) {
	d := newDisk()
	o := options(errorfs.Wrap(d.MemFS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpRemove || op.Kind == errorfs.OpLock {
			return nil // that needs no room
		}
		return d.inject(op)
	})))
	o.MinFreeDisk = 8 << 20
	usage := func(free uint64) { d.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40}) }
	exists := func(name string) bool {
		_, err := d.Stat(d.PathJoin(dataDir, name))
		return err == nil
	}
	usage(1 << 30)
	s := runWith(t, o)
	w := storetest.NewWorld(time.Now())
	for range 20 {
		w.Play(t.Context(), s.Store)
	}
	eventually(t, "there is a ballast", func() bool { return exists("ballast") })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	const stray = "db/999990.sst"
	f, err := d.Create(d.PathJoin(dataDir, stray), vfs.WriteCategoryUnspecified)
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	usage(0)
	d.plan(1, func() error {
		if exists("ballast") {
			return syscall.ENOSPC
		}
		return nil
	})
	s = runWith(t, o)
	if exists("ballast") || exists(stray) {
		t.Errorf("the ballast is there: %t, what was left behind: %t", exists("ballast"), exists(stray))
	}
	check(t, w, s.Store, true)
	d.plan(0, nil)
	m, ds := storetest.NewMessage(time.Now(), "a@example.com")
	if err := storetest.Accept(t.Context(), s, m, ds, nil); !errors.Is(err, relay.ErrNoSpace) {
		t.Errorf("with nothing free: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	usage(1 << 30)
	s = runWith(t, o)
	eventually(t, "there is a ballast again", func() bool { return exists("ballast") })
	check(t, w, s.Store, true)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	o.MinFreeDisk = 0
	s = runWith(t, o)
	eventually(t, "nobody wants a ballast", func() bool { return !exists("ballast") })
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	// No room was kept: whoever opens it is told why it cannot be, time and again, and
	// the attempts leave nothing behind.
	tables := func() (n int) {
		names, err := d.List(d.PathJoin(dataDir, "db"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if len(name) > 4 && name[len(name)-4:] == ".sst" {
				n++
			}
		}
		return n
	}
	d.plan(1, func() error { return syscall.ENOSPC })
	most := 0
	for i := range 5 {
		if s, err := store.Open(o); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("%v, %v", s, err)
		}
		if n := tables(); i == 0 {
			most = n
		} else if n > most {
			t.Errorf("%d tables after the first attempt, %d now", most, n)
		}
	}
	d.plan(0, nil)
	s = runWith(t, o)
	check(t, w, s.Store, true)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}
