package queue

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/store"
)

// openStore runs the embedded store in dir; close ends it.
func openStore(t testing.TB, dir string) (s *store.Store, closeIt func()) {
	t.Helper()
	s, err := store.Open(store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// gate is a Deliverer that takes what it lets through and counts it.
type gate struct {
	mu    sync.Mutex
	taken map[relay.MessageID]int
	open  chan struct{} // closed: mail for shut.test passes
	all   atomic.Int64
}

func (g *gate) Deliver(ctx context.Context, job deliver.Job) relay.Result {
	if job.Delivery.Lane.Destination == "shut.test" {
		select {
		case <-g.open:
		case <-ctx.Done():
			return unreached(job)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.taken[job.Message.ID]++
	g.all.Add(1)
	return taken(job)
}

// On the real store: many accounts and destinations at once, a stop in the
// middle, and everything is delivered exactly once.
func TestRestartOnTheEmbeddedStore(t *testing.T) {
	dir := t.TempDir()
	g := &gate{taken: make(map[relay.MessageID]int), open: make(chan struct{})}
	var delivered atomic.Int64
	tell := func(e *events.Event) {
		if e.Kind == events.Delivered {
			delivered.Add(1)
		}
	}
	run := func() (q *Queue, stop func()) {
		s, closeIt := openStore(t, dir)
		q = New(Options{Drain: time.Millisecond, MaxConnections: 50}, s, g, &senders{}, tell, zap.NewNop(), nil)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- q.Run(ctx) }()
		return q, func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			closeIt()
		}
	}
	const each = 40
	q, stop := run()
	var senders sync.WaitGroup
	for _, who := range []string{"a", "b", "c"} {
		senders.Go(func() {
			for i := range each {
				to := "x@shut.test"
				if i%2 == 0 {
					to = "x@open.test"
				}
				d := q.NewDraft("")
				d.Write([]byte("Subject: test\r\n\r\nhello\r\n"))
				m := message("1")
				m.EnvelopeID = who
				if err := q.Accept(t.Context(), m, recipients(to, "x@third.test"), d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	senders.Wait()
	stop() // cuts off what waits at shut.test
	close(g.open)
	_, stop = run()
	want := int64(3 * each * 2)
	deadline := time.After(time.Minute)
	for delivered.Load() < want {
		select {
		case <-deadline:
			t.Fatalf("%d of %d delivered", delivered.Load(), want)
		case <-time.After(5 * time.Millisecond):
		}
	}
	stop()
	if got := g.all.Load(); got != want {
		t.Errorf("%d deliveries made, want %d", got, want)
	}
	for id, n := range g.taken {
		if n != 2 {
			t.Errorf("%s: delivered to %d destinations", id, n)
		}
	}
	s, closeIt := openStore(t, dir)
	defer closeIt()
	err := s.Backlogs(t.Context(), func(b relay.Backlog) bool {
		t.Errorf("left in the queue: %+v", b)
		return true
	})
	if err != nil {
		t.Error(err)
	}
}
