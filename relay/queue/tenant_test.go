package queue

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/queue/fair"
)

// toMany are n recipients, each at a domain of its own.
func toMany(prefix string, n int) (rcpts []string) {
	for i := range n {
		rcpts = append(rcpts, fmt.Sprintf("x@%s%d.test", prefix, i))
	}
	return rcpts
}

// latency sends messages of an account, one after the other to a new destination
// each, and gives the longest time that one took.
func (w *world) latency(who account.ID, prefix string, n int, pause time.Duration) (worst time.Duration) {
	w.t.Helper()
	for _, to := range toMany(prefix, n) {
		begun := time.Now()
		m := w.send(who, to)
		for done := false; !done; {
			time.Sleep(10 * time.Millisecond)
			w.store.with(func() { _, done = w.store.finished[relay.DeliveryKey{Message: m.ID}] })
			if time.Since(begun) > time.Hour {
				w.t.Fatalf("%s was not delivered within an hour", to)
			}
		}
		worst = max(worst, time.Since(begun))
		w.q.call(func(s *scheduler, _ time.Time) { s.audit(w.t) })
		time.Sleep(pause)
	}
	return worst
}

// One message of one account to many tarpits takes nothing from the others that
// they need, at once or later, nor do two accounts that do so.
func TestTarpitsOfOneAccount(t *testing.T) {
	for _, attackers := range []int{1, 2} {
		t.Run(fmt.Sprint(attackers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{MaxConnections: 100})
				w.start()
				for i := range attackers {
					to := toMany(fmt.Sprintf("tar%d-", i), 950)
					for j := range to {
						w.hosts.set(fmt.Sprintf("tar%d-%d.test", i, j), after(15*time.Minute, unreached))
					}
					w.send(account.ID(fmt.Sprint("evil", i)), to...)
				}
				if worst := w.latency("good", "new", 30, time.Second); worst > 100*time.Millisecond {
					t.Errorf("a message took %v", worst)
				}
				// One that had trouble is tried again in time.
				w.hosts.set("ill.test", after(time.Second, unreached))
				w.send("good", "x@ill.test")
				time.Sleep(2 * time.Second)
				w.hosts.set("ill.test", after(time.Second, taken))
				done := w.store.done()
				time.Sleep(5*time.Minute + time.Second)
				if w.store.done() == done {
					t.Errorf("what had trouble is not tried again: %v", w.hosts.to("ill.test"))
				}
				if worst := w.latency("good", "newer", 30, time.Minute); worst > 100*time.Millisecond {
					t.Errorf("later a message took %v", worst)
				}
				for i := range attackers {
					for j := range 950 {
						w.hosts.set(fmt.Sprintf("tar%d-%d.test", i, j), takes)
					}
				}
				time.Sleep(12 * time.Hour)
				if n := w.store.done(); n != 61+950*attackers {
					t.Errorf("%d were delivered at last", n)
				}
				w.stop()
			})
		})
	}
}

func takes(_ context.Context, job deliver.Job) relay.Result { return taken(job) }

// Hosts that take mail until they are trusted, and then hang, leave room to others.
func TestTarpitsThatWereGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{MaxConnections: 100})
		w.start()
		for range 30 {
			for _, to := range toMany("false", 20) {
				w.send("evil", to)
			}
			time.Sleep(time.Second)
		}
		for i := range 20 {
			w.hosts.set(fmt.Sprintf("false%d.test", i), after(15*time.Minute, unreached))
		}
		for range 20 {
			for _, to := range toMany("false", 20) {
				w.send("evil", to)
			}
		}
		time.Sleep(20 * time.Second)
		if n := w.hosts.underway(); n < 80 {
			t.Errorf("only %d attempts hang: the test proves nothing", n)
		}
		if worst := w.latency("good", "new", 20, time.Second); worst > 100*time.Millisecond {
			t.Errorf("a message took %v", worst)
		}
		w.stop()
	})
}

func (h *hosts) underway() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at
}

// address is a host, or an address, with its own bound on connections, as
// relay/deliver keeps it.
type address struct {
	name  string
	slots chan struct{}
	takes func(context.Context, deliver.Job) relay.Result

	mu     sync.Mutex
	turned int // away
}

func (a *address) deliver(ctx context.Context, job deliver.Job) relay.Result {
	select {
	case a.slots <- struct{}{}:
	case <-time.After(job.Patience):
		a.mu.Lock()
		a.turned++
		a.mu.Unlock()
		r := relay.FailAll(job.Delivery, relay.Failure{
			Class: relay.Temporary, Reach: relay.ReachDestination, Reason: events.HostUntried, Status: "4.4.5",
			Reply: relay.Reply{Text: a.name + " has all the connections it may have"},
		}, time.Now())
		r.Cut, r.Crowded = true, a.name
		return r
	}
	defer func() { <-a.slots }()
	r := a.takes(ctx, job)
	r.Attempt.Hosts = []relay.HostEvidence{{Host: job.Delivery.Lane.Destination, Address: a.name}}
	return r
}

// Many domains at one address wait for its connections without a slot each, and all
// are served in the end, as fast as the address takes them. Accounts take turns
// there.
func TestManyDomainsAtOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{MaxConnections: 100})
		w.start()
		at := &address{name: "192.0.2.1:25", slots: make(chan struct{}, 20), takes: after(5*time.Second, taken)}
		for i := range 950 {
			w.hosts.set(fmt.Sprintf("shared%d.test", i), at.deliver)
		}
		w.hosts.set("mine.test", at.deliver)
		begun := time.Now()
		w.send("big", toMany("shared", 950)...)
		if worst := w.latency("good", "new", 20, 200*time.Millisecond); worst > 100*time.Millisecond {
			t.Errorf("elsewhere a message took %v", worst)
		}
		time.Sleep(time.Minute) // all have been there
		if n := w.hosts.underway(); n > 25 {
			t.Errorf("%d attempts are under way to twenty connections", n)
		}
		mine := time.Now()
		m := w.send("good", "x@mine.test")
		for w.store.look().finished[relay.DeliveryKey{Message: m.ID}].Key == (relay.DeliveryKey{}) {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(mine); took > 20*time.Second {
			t.Errorf("at the same address a message of another took %v", took)
		}
		for w.store.done() < 950+20+1 && time.Since(begun) < time.Hour {
			time.Sleep(time.Second)
		}
		// 950 of them, 20 at a time, 5 s each, are 4 minutes.
		if took := time.Since(begun); took > 6*time.Minute {
			t.Errorf("%d delivered after %v", w.store.done(), took)
		}
		at.mu.Lock()
		if at.turned > 3*950 {
			t.Errorf("%d attempts were turned away", at.turned)
		}
		at.mu.Unlock()
		for _, d := range w.store.look().finished {
			if d.Attempts != 1 {
				t.Fatalf("an attempt without a connection was counted: %d", d.Attempts)
			}
		}
		if k := w.kinds(); k[events.Deferred] != 0 {
			t.Errorf("told %v", k)
		}
		time.Sleep(time.Minute)
		w.q.call(func(s *scheduler, _ time.Time) {
			if len(s.crowded) != 0 || s.waiting != [waitsForKinds]int{} {
				t.Errorf("%d crowded hosts, waiting %v", len(s.crowded), s.waiting)
			}
		})
		w.stop()
	})
}

// Who never gets a connection hears of the delay, and comes to an end.
func TestNoConnectionForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.start()
		at := &address{name: "192.0.2.1:25", slots: make(chan struct{}), takes: after(time.Second, taken)}
		for i := range 50 {
			w.hosts.set(fmt.Sprintf("never%d.test", i), at.deliver)
		}
		w.send("a", toMany("never", 50)...)
		time.Sleep(9 * time.Hour)
		if n := w.kinds()[events.Deferred]; n < 50 {
			t.Errorf("after nine hours %d deferrals are told", n)
		}
		for i, d := range w.store.look().queued {
			if d.Last == nil || d.Last.Reason != events.HostUntried {
				t.Fatalf("%v: %+v", i, d.Last)
			}
		}
		time.Sleep(76 * time.Hour)
		if n, left := w.kinds()[events.Bounce], len(w.store.look().queued); n != 50 || left != 0 {
			t.Errorf("%d of 50 at their end, %d queued", n, left)
		}
		w.stop()
	})
}

// What is due later costs no queue in memory, neither when it is put off nor after a restart,
// and is tried in time all the same.
func TestQueuesOnlyForWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 3000
		w := newWorld(t, Options{})
		for i := range n {
			w.hosts.set(fmt.Sprintf("later%d.test", i), after(time.Millisecond, unreached))
		}
		w.start()
		for i := range 3 {
			w.send("a", toMany("later", n)[i*n/3:(i+1)*n/3]...)
		}
		time.Sleep(2 * time.Minute)
		if k := w.kinds(); k[events.Deferred] != n {
			t.Fatalf("told %v", k)
		}
		idle := func() (queues, accounts int) {
			w.q.call(func(s *scheduler, now time.Time) {
				s.sweep(0, now)
				queues = len(s.queues)
				for _, dq := range s.queues {
					accounts += len(dq.accounts)
				}
			})
			return queues, accounts
		}
		if queues, accounts := idle(); queues+accounts != 0 {
			t.Errorf("%d destination and %d account queues for what is due in three minutes", queues, accounts)
		}
		for i := range n {
			w.hosts.set(fmt.Sprintf("later%d.test", i), takes)
		}
		w.stop()
		w.start()
		time.Sleep(10 * time.Second)
		if queues, accounts := idle(); queues+accounts != 0 {
			t.Errorf("after a restart %d destination and %d account queues", queues, accounts)
		}
		time.Sleep(3 * time.Minute)
		if got := w.store.done(); got != n {
			t.Errorf("%d of %d were delivered in time", got, n)
		}
		w.stop()
	})
}

// Queues that have had nothing to do for a moment make room for others, and what
// they have learned is not forgotten.
func TestQueuesMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.start()
		for range 12 {
			w.send("good", "x@known.test")
			synctest.Wait()
		}
		for i := range 5 * minSweep {
			w.send("evil", fmt.Sprintf("x@d%d.test", i))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if n := len(w.q.Destinations()); n > 2*minSweep {
			t.Errorf("%d queues in memory", n)
		}
		w.q.call(func(s *scheduler, now time.Time) {
			if dq := s.accountQueue(laneTo("known.test"), "good", now).dest; dq.standing != fair.Healthy || dq.window.Size(s.limits) != 17 {
				t.Errorf("known.test is %s, %+v", dq.standing, dq.window)
			}
			m := &s.tenant("evil").learned
			if n := len(m.young) + len(m.old); n > 2*maxLessons {
				t.Errorf("%d lessons", n)
			}
		})
		time.Sleep(time.Hour)
		w.q.call(func(s *scheduler, now time.Time) {
			if len(s.queues)+len(s.tenants) != 0 {
				t.Errorf("an hour later, %d queues and %d accounts", len(s.queues), len(s.tenants))
			}
		})
		w.stop()
	})
}
