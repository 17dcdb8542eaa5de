package store_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

// countingFS counts syncs of files.
type countingFS struct {
	vfs.FS
	syncs atomic.Int64
}

type countingFile struct {
	vfs.File
	fs *countingFS
}

func (f *countingFS) count(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return countingFile{file, f}, nil
}

func (f *countingFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.count(f.FS.Create(name, c))
}

func (f *countingFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.count(f.FS.ReuseForWrite(from, to, c))
}

func (f countingFile) Sync() error {
	f.fs.syncs.Add(1)
	return f.File.Sync()
}

func (f countingFile) SyncData() error {
	f.fs.syncs.Add(1)
	return f.File.SyncData()
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak is the most memory this process has had, in MB.
func peak() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Maxrss) / 1024
}

func openBench(b *testing.B, fs vfs.FS) *store.Store {
	s, err := store.Open(store.Options{Dir: b.TempDir(), FS: fs, MinFreeDisk: 1 << 20})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		<-ended
		s.Close()
	})
	return s
}

// The fast path: a message of 10 KiB is accepted as claimed, synced, and
// delivered.
func BenchmarkAcceptFinish(b *testing.B) {
	for _, clients := range []int{1, 8, 64} {
		b.Run(fmt.Sprint("clients=", clients), func(b *testing.B) {
			fs := &countingFS{FS: vfs.Default}
			s := openBench(b, fs)
			syncs := fs.syncs.Load()
			acceptFinish(b, s, clients)
			b.ReportMetric(float64(fs.syncs.Load()-syncs)/float64(b.N), "syncs/op")
			b.ReportMetric(peak(), "peak-MB")
		})
	}
}

// The fast path of an account with a webhook, whose events are removed in batches.
func BenchmarkAcceptFinishTold(b *testing.B) {
	s := openBench(b, vfs.Default)
	if err := storetest.PutEndpoint(b.Context(), s, webhookEndpoint()); err != nil {
		b.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		next := webhook.From(0)
		for tick := time.NewTicker(10 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			rows, err := s.Rows(context.Background(), "e", next, 768<<10)
			if err != nil || len(rows) == 0 {
				continue
			}
			last := rows[len(rows)-1].Seq
			_ = s.Remove(context.Background(), "e", webhook.Span{Last: last})
			next = webhook.From(last + 1)
		}
	}()
	acceptFinish(b, s, 8)
	close(stop)
	<-ended
}

// acceptFinish measures the fast path, to destinations from a to z.
func acceptFinish(b *testing.B, s *store.Store, clients int) {
	body := bytes.Repeat([]byte("0123456789abcde\n"), 640)
	b.SetParallelism((clients + 1) / 2)
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for n := 0; pb.Next(); n++ {
			now := time.Now()
			m, ds := storetest.NewMessage(now, fmt.Sprintf("someone@%c.example", 'a'+n%26))
			ds[0].Attempts, ds[0].Due = 1, now.Add(time.Hour)
			if err := storetest.Accept(b.Context(), s, m, ds, body); err != nil {
				b.Fatal(err)
			}
			if err := s.Commit(b.Context(), storetest.Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, now)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

// backlogOf queues n small messages in one queue.
func backlogOf(b *testing.B, s *store.Store, n int) relay.Lane {
	b.Helper()
	now := time.Now().Add(-time.Hour)
	var lane relay.Lane
	// Many destinations per message would be cheaper, but it is one queue.
	const writers = 256
	done := make(chan error, writers)
	for range writers {
		go func() {
			for range n / writers {
				m, ds := storetest.NewMessage(now, "someone@example.com")
				if err := storetest.Accept(context.Background(), s, m, ds, []byte("x")); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	_, ds := storetest.NewMessage(now, "someone@example.com")
	lane = ds[0].Lane
	return lane
}

// A million messages wait in one queue.
func BenchmarkBacklog(b *testing.B) {
	if testing.Short() {
		b.SkipNow()
	}
	s := openBench(b, vfs.Default)
	lane := backlogOf(b, s, 1_000_000)
	b.Run("Backlogs", func(b *testing.B) {
		for b.Loop() {
			n := 0
			if err := s.Backlogs(b.Context(), func(relay.Backlog) bool { n++; return true }); err != nil || n != 1 {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("Claim50", func(b *testing.B) {
		for b.Loop() {
			now := time.Now()
			got, _, err := s.Claim(b.Context(), lane, account.Parent, now, 50, func(int) time.Time { return now.Add(time.Hour) }, nil)
			if err != nil || len(got) == 0 {
				b.Fatal(len(got), err)
			}
		}
	})
	b.Run("Overview", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := s.Overview(b.Context(), time.Now(), "", 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("AcceptFinish", func(b *testing.B) { acceptFinish(b, s, 8) })
	b.ReportMetric(peak(), "peak-MB")
}
