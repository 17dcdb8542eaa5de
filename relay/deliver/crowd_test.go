package deliver

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/pool"
	"tlsrelay/relay/deliver/smtp"
	"tlsrelay/relay/deliver/smtp/handshake"
	"tlsrelay/relay/relaytest"
	"tlsrelay/relay/resolve"
)

// many makes engines that share the pool of e and go each to a host of its own
// name, all at the same addresses.
func many(e *Engine, n int, addrs ...netip.AddrPort) (all []*Engine) {
	for i := range n {
		route := resolve.Route{Hosts: []resolve.Host{hostAt(fmt.Sprintf("mx%d.example.test", i), addrs...)}}
		all = append(all, &Engine{o: e.o, router: router{route: route}, log: e.log, pool: e.pool, metrics: e.metrics, client: e.client, nameRefusers: e.nameRefusers})
	}
	return all
}

// TestOneAddressOfManyNames: an address gets as many connections as a host may have,
// whatever names it has. Who has waited in vain for long enough goes away, with no
// evidence against anybody.
func TestOneAddressOfManyNames(t *testing.T) {
	w := relaytest.Start(t)
	tarpit := w.Host(t, "mx.example.test", relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Silence}})
	e := engine(t, w, resolve.Route{}, func(o *Options) { o.MaxPerHost = 3 })
	ctx, cancel := context.WithCancel(context.Background())
	results := make(chan relay.Result, 20)
	var wg sync.WaitGroup
	for _, e := range many(e, 20, tarpit.Addr()) {
		wg.Go(func() {
			job := jobTo(t, modeT)
			job.Patience = 100 * time.Millisecond
			results <- e.Deliver(ctx, job)
		})
	}
	for range 17 {
		r := <-results
		f := failureOf(r)
		if r.Crowded != tarpit.Addr().String() || !r.Cut || r.Feedback != relay.Neutral || len(r.Attempt.Hosts) != 0 || r.History.Since != (time.Time{}) ||
			f.Class != relay.Temporary || f.Reason != events.HostUntried || f.Status != "4.4.5" {
			t.Errorf("%+v, %+v", r, f)
		}
		ownWords(t, r)
	}
	if n := tarpit.Connections(); n != 3 {
		t.Errorf("%d connections", n)
	}
	cancel()
	wg.Wait()
	for range 3 {
		if r := <-results; r.Crowded != "" {
			t.Errorf("one that was let in: %+v", r)
		}
	}
}

// TestNamesTakeTurns: an idle session for one name of an address makes room for
// another name.
func TestNamesTakeTurns(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx.example.test")
	e := engine(t, w, resolve.Route{}, func(o *Options) { o.MaxPerHost = 2 })
	for _, e := range many(e, 6, h.Addr()) {
		job := jobTo(t, modeT)
		job.Patience = time.Minute
		if r := e.Deliver(context.Background(), job); how(r) != "tls" {
			t.Fatalf("%+v", failureOf(r))
		}
		if open := e.pool.Stats().Open; open > 2 {
			t.Errorf("%d connections", open)
		}
	}
	if h.Accepted() != 6 {
		t.Errorf("%d messages", h.Accepted())
	}
}

// TestRoomBeside: nobody waits for an address, or one of several equal hosts, while
// another has room; but for the better host he does.
func TestRoomBeside(t *testing.T) {
	w := relaytest.Start(t)
	full, free := w.Host(t, "mx1.example.test"), w.Host(t, "mx2.example.test")
	e := engine(t, w, resolve.Route{}, func(o *Options) { o.MaxPerHost = 1 })
	taken := smtp.Target{Host: "other.test", Endpoint: handshake.Endpoint{Addr: full.Addr()}}
	if _, err := e.pool.Acquire(context.Background(), taken, pool.Fresh, 0); err != nil {
		t.Fatal(err)
	}
	deliver := func(crowded string, hosts ...resolve.Host) {
		t.Helper()
		e.router = router{route: resolve.Route{Hosts: hosts}}
		job := jobTo(t, modeT)
		job.Patience = 50 * time.Millisecond
		if r := e.Deliver(context.Background(), job); r.Crowded != crowded || crowded == "" && how(r) != "tls" {
			t.Errorf("crowded %q, %+v", r.Crowded, failureOf(r))
		}
	}
	both := []netip.AddrPort{full.Addr(), free.Addr()}
	deliver("", hostAt("mx3.example.test", both...))
	if both[0] != full.Addr() {
		t.Error("the route was changed for everybody")
	}
	deliver("", hostAt("mx1.example.test", full.Addr()), hostAt("mx2.example.test", free.Addr()))
	second := hostAt("mx5.example.test", free.Addr()) // to which no session is open
	second.Preference = 20
	deliver(full.Addr().String(), hostAt("mx1.example.test", full.Addr()), second)
	e.pool.Release(taken, false)
	deliver("", hostAt("mx1.example.test", full.Addr()), second)
	if full.Accepted() != 1 || free.Accepted() != 2 {
		t.Errorf("%d and %d messages", full.Accepted(), free.Accepted())
	}
}
