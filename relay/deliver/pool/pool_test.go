package pool

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"tlsrelay/relay/deliver/smtp"
	"tlsrelay/relay/deliver/smtp/handshake"
)

// TestWaitingEnds: waiting for a connection ends with the context, and the
// place is not lost.
func TestWaitingEnds(t *testing.T) {
	p := New(1, 1, time.Minute)
	k := smtp.Target{Host: "mx.test", Endpoint: handshake.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:25")}}
	if _, err := p.Acquire(context.Background(), k, Fresh, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error)
	go func() { _, err := p.Acquire(ctx, k, Fresh, 0); waiting <- err }()
	cancel()
	if err := <-waiting; err == nil {
		t.Fatal("got a second place")
	}
	p.Release(k, false)
	if _, err := p.Acquire(context.Background(), k, Fresh, 0); err != nil {
		t.Fatal(err)
	}
	p.Release(k, false)
	if open := p.Stats().Open; open != 0 || len(p.waiters) != 0 || len(p.open) != 0 {
		t.Errorf("left over: %d open, %d waiting", open, len(p.waiters))
	}
}

// TestPatienceIsForOthers: at the bound on all connections everybody waits for his
// turn, and a host's own bound is named by its host.
func TestPatienceIsForOthers(t *testing.T) {
	p := New(2, 1, time.Minute)
	key := func(host, addr string) smtp.Target {
		return smtp.Target{Host: host, Endpoint: handshake.Endpoint{Addr: netip.MustParseAddrPort(addr)}}
	}
	get := func(k smtp.Target) error {
		_, err := p.Acquire(context.Background(), k, Fresh, time.Millisecond)
		return err
	}
	one, two := key("a.test", "192.0.2.1:25"), key("b.test", "192.0.2.2:25")
	for _, k := range []smtp.Target{one, two} {
		if err := get(k); err != nil {
			t.Fatal(err)
		}
	}
	for k, want := range map[smtp.Target]string{
		key("a.test", "192.0.2.3:25"): "a.test", key("c.test", "192.0.2.2:25"): "192.0.2.2:25",
	} {
		if err, ok := get(k).(*CrowdedError); !ok || err.Place != want {
			t.Errorf("%+v: %v", k, err)
		}
	}
	got := make(chan error)
	go func() { got <- get(key("c.test", "192.0.2.3:25")) }()
	select {
	case err := <-got:
		t.Errorf("did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	p.Release(one, false)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// waiters of a crowd whose limit is forgotten are all let go.
func TestAllWaitersAreWoken(t *testing.T) {
	p := New(100, 20, time.Minute)
	k := smtp.Target{Host: "mx.test", Endpoint: handshake.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:25")}}
	p.Acquire(context.Background(), k, Fresh, 0)
	p.Acquire(context.Background(), k, Fresh, 0)
	p.TurnedAway(k, false) // limit 1
	p.Release(k, false)
	var got atomic.Int32
	for range 5 {
		go func() { p.Acquire(context.Background(), k, Fresh, 0); got.Add(1) }()
	}
	for {
		p.mu.Lock()
		n := len(p.waiters)
		p.mu.Unlock()
		if n == 5 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if p.TurnedAway(k, false) {
		t.Fatal("limit stays")
	}
	p.Release(k, false) // nothing is open any more, no limit is known
	time.Sleep(200 * time.Millisecond)
	if got.Load() != 5 {
		t.Errorf("%d of 5 have a place; %d of %d are open", got.Load(), p.total, p.perHost)
	}
}
