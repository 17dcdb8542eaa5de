package store_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

// nearlyFull is a disk that says how much it has free.
type nearlyFull struct {
	vfs.FS
	free uint64
}

func (d *nearlyFull) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{AvailBytes: d.free, TotalBytes: 1 << 30}, nil
}

// An account that has filled the disk is the first to be refused, at MAIL and at the
// content, and others are served meanwhile. It has its room again when its mail has
// left. A restart changes nothing of it.
func TestWhoFillsTheDiskMeetsTheBoundFirst(t *testing.T) {
	const reserve, size = 1 << 20, 100_000
	disk := &nearlyFull{vfs.Default, 1 << 29}
	o := store.Options{Dir: t.TempDir(), FS: disk, MinFreeDisk: reserve}
	var s *store.Store
	reopen := func() {
		t.Helper()
		var err error
		if s != nil {
			err = s.Close()
		}
		if err == nil {
			s, err = store.Open(o)
		}
		if err == nil {
			err = s.Verify() // which counts, as Run does
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	now := time.Now()
	accept := func(who account.ID, size int, want error) relay.Claimed {
		t.Helper()
		m, ds := storetest.NewMessage(now, "x@a.example")
		m.Account, m.Size, ds[0].Account = who, int64(size), who
		ds[0].Attempts, ds[0].Due = 1, now.Add(time.Hour)
		if err := storetest.Accept(t.Context(), s, m, ds, bytes.Repeat([]byte("x"), size)); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", who, err, want)
		}
		return relay.Claimed{Message: m, Delivery: ds[0]}
	}
	var taken []relay.Claimed
	for range 20 {
		taken = append(taken, accept("evil", size, nil))
	}
	accept("good", size, nil)
	leave := func(free uint64) {
		t.Helper()
		disk.free = free
		if err := s.Room(); err != nil && free >= reserve { // which asks the disk
			t.Error(err)
		}
	}
	leave(reserve + 3*reserve/2)
	accept("evil", 3*size, relay.ErrAccountFull) // would go to a spool file
	taken = append(taken, accept("good", 3*size, nil))
	for range 2 {
		leave(reserve + reserve/2)
		if err := s.Admit("evil"); !errors.Is(err, relay.ErrAccountFull) {
			t.Errorf("evil at MAIL: %v", err)
		}
		accept("evil", 10, relay.ErrAccountFull)
		for _, who := range []account.ID{"good", "new"} {
			if err := s.Admit(who); err != nil {
				t.Errorf("%s at MAIL: %v", who, err)
			}
			accept(who, 1000, nil)
		}
		reopen()
	}
	for _, c := range taken {
		if err := s.Commit(t.Context(), storetest.Delivered(c, now)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Admit("evil"); err != nil {
		t.Errorf("evil, when its mail has left: %v", err)
	}
	accept("evil", size, nil)
	leave(reserve - 1)
	accept("good", 10, relay.ErrNoSpace)
	if err := errors.Join(s.Verify(), s.Close()); err != nil {
		t.Error(err)
	}
}
