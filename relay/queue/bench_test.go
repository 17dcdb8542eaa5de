package queue

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

// nothing is a store that keeps no more than it must for the fast path, and a
// host that takes everything: what is left to measure is the queue itself.
type nothing struct{ *memory }

func (nothing) NewDraft(account.ID) relay.Draft { return &draft{} }

func (nothing) Accept(_ context.Context, _ relay.Message, ds []relay.Delivery, _ relay.Draft, _ []events.Event) error {
	if ds[0].Attempts != 1 {
		return errDisk // only the fast path is measured
	}
	return nil
}

func (nothing) Commit(context.Context, relay.Transition) error { return nil }

func (nothing) Body(context.Context, relay.MessageID) (relay.Body, error) { return body(nil), nil }

type taker struct{}

func (taker) Deliver(_ context.Context, job deliver.Job) relay.Result { return taken(job) }

// BenchmarkFastPath is one message through Accept, the loop, a worker and the
// step, one after the other.
func BenchmarkFastPath(b *testing.B) {
	for _, lanes := range []int{1, 1000} {
		b.Run(fmt.Sprintf("lanes=%d", lanes), func(b *testing.B) {
			delivered := make(chan struct{}, 1)
			tell := func(e *events.Event) {
				if e.Kind == events.Delivered {
					delivered <- struct{}{}
				}
			}
			q := New(Options{}, nothing{newMemory()}, taker{}, &senders{}, tell, zap.NewNop(), nil)
			stop := runFor(b, q)
			defer stop()
			to := make([][]relay.Recipient, lanes)
			for i := range to {
				to[i] = recipients(fmt.Sprintf("x@d%d.test", i))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := q.Accept(b.Context(), message("1"), to[i%lanes], q.NewDraft("")); err != nil {
					b.Fatal(err)
				}
				<-delivered
			}
		})
	}
}

// BenchmarkBacklog drains a backlog by claims, many attempts at a time.
func BenchmarkBacklog(b *testing.B) {
	w := newWorld(b, Options{})
	var n atomic.Int64
	done := make(chan struct{})
	tell := func(e *events.Event) {
		if e.Kind == events.Delivered && n.Add(1) == int64(b.N) {
			close(done)
		}
	}
	for i := range 10 {
		w.pile((b.N+9-i)/10, "1", fmt.Sprintf("x@d%d.test", i))
	}
	q := New(Options{}, w.store, taker{}, w.senders, tell, zap.NewNop(), nil)
	b.ReportAllocs()
	b.ResetTimer()
	stop := runFor(b, q)
	<-done
	b.StopTimer()
	stop()
}

func runFor(b *testing.B, q *Queue) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- q.Run(ctx) }()
	for q.Destinations() == nil {
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	}
}
