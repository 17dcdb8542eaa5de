package queue

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

func TestDeadDestinationLeavesTheOthersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{MaxConnections: 20})
		w.hosts.set("dead.test", after(30*time.Second, unreached))
		w.hosts.set("well.test", after(100*time.Millisecond, taken))
		w.pile(10_000, "a", "x@dead.test")
		w.pile(200, "a", "x@well.test")
		w.start()
		begun := time.Now()
		time.Sleep(3 * time.Second)
		if got := w.store.done(); got != 200 {
			t.Errorf("%d of 200 delivered after %v", got, time.Since(begun))
		}
		w.send("a", "y@well.test")
		time.Sleep(time.Second)
		if got := w.store.done(); got != 201 {
			t.Error("a new message waits behind the dead destination")
		}
		time.Sleep(time.Hour)
		if got := len(w.hosts.to("dead.test")); got < 10 || got > 30 {
			t.Errorf("%d attempts at a dead destination in an hour", got)
		}
		for _, l := range w.q.Destinations() {
			if l.Lane == laneTo("dead.test") && (l.Claimed > 1 || l.Window != 1 || l.Last != events.ConnectFail) {
				t.Errorf("the dead destination: %+v", l)
			}
		}
		// It comes back, and all is delivered within the hour.
		w.hosts.set("dead.test", after(100*time.Millisecond, taken))
		time.Sleep(time.Hour)
		if got := w.store.done(); got != 10_201 {
			t.Errorf("%d delivered after it came back", got)
		}
		w.stop()
	})
}

// Nobody waits for longer than the lifetime, however few probes are made.
func TestDeadDestinationComesToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.hosts.set("dead.test", after(30*time.Second, unreached))
		w.pile(700, "a", "x@dead.test")
		w.start()
		time.Sleep(12 * time.Hour)
		if k := w.kinds(); k[events.Deferred] < 700 {
			t.Errorf("after twelve hours, %d deferrals told of 700 messages", k[events.Deferred])
		}
		time.Sleep(72 * time.Hour)
		if got := w.kinds()[events.Bounce]; got != 700 || len(w.store.look().queued) != 0 {
			t.Errorf("%d of 700 at their end, %d queued", got, len(w.store.look().queued))
		}
		if got := len(w.hosts.to("dead.test")); got > 1200 {
			t.Errorf("%d attempts", got)
		}
		w.stop()
	})
}

// The end of the policy window decides also where nothing is tried, if the
// sender still demands what failed.
func TestDeadDestinationComesToTheEndOfThePolicyWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.hosts.set("dead.test", after(30*time.Second, func(job deliver.Job) relay.Result {
			if job.Sender.Demands().Opportunistic() {
				job.Delivery.History = policy.History{}
			}
			return unreached(job)
		}))
		w.pile(50, "tenant", "x@dead.test")
		w.pile(50, "loosened", "x@dead.test")
		w.store.with(func() {
			for k, d := range w.store.queued {
				d.History = policy.History{Since: time.Now(), Ends: time.Now().Add(24 * time.Hour)}
				d.History.Violation.Host = "mx.dead.test"
				w.store.queued[k] = d
			}
		})
		w.start()
		time.Sleep(24 * time.Hour)
		if k := w.kinds(); k[events.Bounce] != 0 {
			t.Errorf("told %v before the window ended", k)
		}
		time.Sleep(12 * time.Hour)
		for _, e := range w.heard() {
			if e.Kind == events.Bounce && (e.Account != "tenant" || e.Reply != events.TLSBlocked || e.Type != events.TypeBlocked) {
				t.Fatalf("told %+v", e)
			}
		}
		if n := w.kinds()[events.Bounce]; n < 40 {
			t.Errorf("%d of 50 blocked by the end of the window", n)
		}
		w.stop()
	})
}

// What panics while mail for a dead destination is suspended ends that, not the
// process.
func TestPanicInSuspendingIsSurvived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.hosts.set("dead.test", after(30*time.Second, unreached))
		var panics atomic.Int32
		w.onTell = func(e *events.Event) {
			if strings.HasPrefix(e.Reply, "delivery temporarily suspended") && panics.Add(1) < 10 {
				panic("bug")
			}
		}
		w.start()
		w.pile(100, "a", "x@dead.test")
		w.q.Rescan()
		time.Sleep(100 * time.Hour)
		if panics.Load() < 10 || len(w.store.look().queued) != 0 {
			t.Errorf("%d tellings, %d of 100 still queued", panics.Load(), len(w.store.look().queued))
		}
		w.stop()
	})
}

func TestAccountsShareADestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.hosts.set("one.test", after(time.Second, taken))
		w.pile(5000, "big", "x@one.test")
		w.start()
		time.Sleep(20 * time.Second)
		begun := time.Now()
		for range 20 {
			w.send("small", "y@one.test")
		}
		time.Sleep(10 * time.Second)
		var last time.Duration
		n := 0
		for _, a := range w.hosts.made() {
			if a.who == "small" {
				n, last = n+1, a.at.Sub(begun)
			}
		}
		// Twenty at a time, every other one: two seconds, and what was in hand.
		if n != 20 || last > 6*time.Second {
			t.Errorf("%d of the small account's messages tried, the last after %v", n, last)
		}
		w.stop()
	})
}

func TestTarpitsDoNotTakeAllSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{MaxConnections: 100})
		for i := range 200 {
			name := fmt.Sprintf("tar%d.test", i)
			w.hosts.set(name, after(5*time.Minute, unreached))
			w.pile(10, "a", "x@"+name)
		}
		w.hosts.set("well.test", after(time.Second, taken))
		w.start()
		time.Sleep(30 * time.Minute)
		worst := time.Duration(0)
		for i := range 50 {
			begun := time.Now()
			before := w.store.done()
			to := "x@well.test"
			if i%2 == 1 { // or a destination never heard of
				to = fmt.Sprintf("x@new%d.test", i)
			}
			w.send("b", to)
			for w.store.done() == before {
				time.Sleep(100 * time.Millisecond)
			}
			worst = max(worst, time.Since(begun))
			time.Sleep(7 * time.Second)
		}
		if worst > 2*time.Second {
			t.Errorf("beside tarpits a message took %v", worst)
		}
		if w.hosts.peak() > 100 {
			t.Errorf("%d attempts at a time", w.hosts.peak())
		}
		w.stop()
	})
}

func TestPerDestinationLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{MaxPerDestination: 3})
		w.hosts.set("one.test", after(time.Second, taken))
		w.pile(100, "a", "x@one.test")
		w.start()
		for range 30 {
			w.send("b", "x@one.test")
		}
		time.Sleep(time.Minute)
		if w.hosts.peak() != 3 || w.store.done() != 130 {
			t.Errorf("%d at a time, %d done", w.hosts.peak(), w.store.done())
		}
		w.stop()
	})
}
