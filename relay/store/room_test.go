package store_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/relay"
	"tlsrelay/relay/store/storetest"
)

// Messages that come at once take no more of the disk than is free above
// min_free_disk: who finds the rest taken by others is told so. What was promised
// needs no room there.
func TestRoomIsTakenBeforehand(t *testing.T) {
	const size, fit, min = 100 << 10, 4, 1 << 20
	d := newDisk()
	o := options(d.fs)
	o.MinFreeDisk = min
	s := runWith(t, o)
	usage := func(free uint64) { d.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40}) }
	usage(min + 1<<20)
	first, ds := queueOne(t, s.Store, nil)
	usage(min + 2*fit*(size+5000))
	if err := s.Room(); err != nil { // measured anew
		t.Fatal(err)
	}

	// No write ends before all have asked.
	asked := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(asked) })
	defer goOn()
	d.plan(1, func() error { <-asked; return nil })
	var taken, refused atomic.Int64
	var senders sync.WaitGroup
	for range 4 * fit {
		senders.Go(func() {
			m, ds := storetest.NewMessage(time.Now(), "a@example.com")
			switch err := storetest.Accept(t.Context(), s, m, ds, make([]byte, size)); {
			case err == nil:
				taken.Add(1)
			case errors.Is(err, relay.ErrNoSpace):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	eventually(t, "the others are refused", func() bool { return refused.Load() >= 3*fit })
	goOn()
	senders.Wait()
	if taken.Load() != fit || refused.Load() != 3*fit {
		t.Errorf("%d are taken and %d refused", taken.Load(), refused.Load())
	}
	d.plan(0, nil)
	if err := s.Room(); err != nil {
		t.Errorf("when all have ended: %v", err)
	}

	// Nothing is free: an outcome is committed, with a report that is large.
	usage(0)
	if err := s.Room(); !errors.Is(err, relay.ErrNoSpace) {
		t.Errorf("with nothing free: %v", err)
	}
	got, _, err := s.Claim(t.Context(), ds[0].Lane, "1", time.Now(), 1, func(int) time.Time { return time.Now() }, nil)
	if err != nil || len(got) != 1 || got[0].Message.ID != first.ID {
		t.Fatal(got, err)
	}
	blocked := storetest.Blocked(got[0], time.Now())
	blocked.Report = reportOf(blocked, "postmaster@report.example")
	blocked.Report.Body = make([]byte, 400<<10)
	if err := s.Commit(t.Context(), blocked); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Verify(), s.stop()); err != nil {
		t.Error(err)
	}
}
