package queue

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/queue/attempt"
	"tlsrelay/relay/queue/fair"
)

// What was claimed and not begun is tried at once by the next start; what was
// being tried is finished first.
func TestRestartContinues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Drain: time.Minute})
		w.hosts.set("slow.test", after(20*time.Second, taken))
		w.start()
		for range 12 {
			w.send("a", "x@slow.test")
		}
		time.Sleep(time.Second)
		begun := time.Now()
		w.stop()
		if w.store.done() != fair.FirstWindow || time.Since(begun) != 19*time.Second {
			t.Fatalf("%d finished in %v", w.store.done(), time.Since(begun))
		}
		w.start()
		time.Sleep(time.Second)
		if got := len(w.hosts.to("slow.test")); got <= fair.FirstWindow {
			t.Errorf("nothing was taken over at once: %d attempts", got)
		}
		time.Sleep(2 * time.Minute)
		if w.store.done() != 12 || len(w.hosts.to("slow.test")) != 12 {
			t.Errorf("%d of 12 finished, %d attempts", w.store.done(), len(w.hosts.to("slow.test")))
		}
		for k, d := range w.store.look().finished {
			if d.Attempts != 1 {
				t.Errorf("%s: attempt %d", k, d.Attempts)
			}
		}
		w.stop()
	})
}

func TestShutdownCutsOffWhatTakesTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Drain: 10 * time.Second})
		w.hosts.set("slow.test", after(time.Hour, taken))
		w.start()
		w.send("a", "x@slow.test")
		time.Sleep(time.Second)
		begun := time.Now()
		w.stop()
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("stopped after %v", took)
		}
		if len(w.store.look().commits) != 0 {
			t.Errorf("the cut was told as %+v", w.store.look().commits[0].Events)
		}
		w.hosts.set("slow.test", nil)
		w.start()
		time.Sleep(time.Second)
		if w.store.done() != 1 {
			t.Error("not taken over by the next start")
		}
		w.stop()
	})
}

// What has not come to MAIL when the end begins is left soon and found by the
// next start, as if it had not been tried; an answer that came counts.
func TestShutdownLeavesWhatIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{Drain: time.Minute})
		until := func(code int) func(context.Context, deliver.Job) relay.Result {
			return func(_ context.Context, job deliver.Job) relay.Result {
				<-job.Opening.Done()
				return cutShort(job, code)
			}
		}
		w.hosts.set("tarpit.test", until(0))
		w.hosts.set("busy.test", until(451))
		w.start()
		w.send("a", "x@tarpit.test", "x@busy.test")
		time.Sleep(time.Second)
		begun := time.Now()
		w.stop()
		if took := time.Since(begun); took != openGrace {
			t.Errorf("stopped after %v", took)
		}
		for _, d := range w.store.look().queued {
			left := d.Lane.Destination == "tarpit.test"
			if left != (d.Attempts == 0) || left != (d.Last == nil) || d.Due.After(time.Now()) {
				t.Errorf("%s: attempt %d, due %v, evidence %v", d.Lane.Destination, d.Attempts, d.Due, d.Last)
			}
		}
		if n := w.kinds()[events.Deferred]; n != 1 {
			t.Errorf("%d deferrals were told", n)
		}
	})
}

// cutShort is an attempt that was cut short, with the last reply that came.
func cutShort(job deliver.Job, code int) relay.Result {
	r := relay.FailAll(job.Delivery, relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachMessage, Status: "4.3.2", Reply: relay.Reply{Code: code},
	}, time.Now())
	r.Cut = true
	return r
}

// An attempt that is cut off for taking too long counts, and comes to its end
// with the lifetime of the message.
func TestCutOffForTakingTooLong(t *testing.T) {
	o := Options{Schedule: relay.Schedule{Lifetime: 24 * time.Hour}}
	bubble(t, o, func(t *testing.T, w *world) {
		w.hosts.set("slow.test", func(ctx context.Context, job deliver.Job) relay.Result {
			<-ctx.Done()
			return cutShort(job, 0)
		})
		w.send("a", "x@slow.test")
		time.Sleep(72 * time.Hour)
		if w.store.done() < 1 || w.kinds()[events.Deferred] == 0 {
			t.Errorf("%d done, told %v", w.store.done(), w.kinds())
		}
	})
}

// Accept works without a loop, and everything is found by the next one.
func TestAcceptWithoutRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.start()
		w.stop()
		w.send("a", "x@one.test")
		w.q = New(w.o, w.store, w.hosts, w.senders, w.told, w.q.log, nil)
		w.send("a", "x@one.test")
		if len(w.hosts.made()) != 0 {
			t.Fatal("attempts without a loop")
		}
		w.start()
		synctest.Wait()
		if w.store.done() != 2 {
			t.Errorf("%d done", w.store.done())
		}
		w.stop()
	})
}

// A crash loses nothing, and what was being tried waits for its lease.
func TestLeaseAfterACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		// As the store has it after a crash: claimed by Accept, never finished.
		m := message("a")
		m.Deliveries = 1
		ds := relay.Split(m, recipients("x@one.test"), func(string) policy.Class { return policy.ClassOpportunistic })
		ds[0].Attempts, ds[0].Due = 1, time.Now().Add(5*time.Minute)
		w.store.add(m, ds)
		begun := time.Now()
		w.start()
		time.Sleep(10 * time.Minute)
		at := w.hosts.to("one.test")
		if len(at) != 1 || at[0].Sub(begun) != 5*time.Minute {
			t.Errorf("attempts at %v", at)
		}
		w.stop()
	})
}

// An attempt that outlasts its lease keeps it, however short that is: nobody
// else gets the delivery, and the commit is good.
func TestLeaseIsRenewed(t *testing.T) {
	for _, lease := range []time.Duration{time.Second, 2*attempt.SlowAfter - 1, 2 * attempt.SlowAfter, 2*attempt.SlowAfter + 1, 10 * time.Minute} {
		t.Run(lease.String(), func(t *testing.T) {
			o := Options{Schedule: relay.Schedule{RetryAfter: lease, RetryMax: lease}}
			bubble(t, o, func(t *testing.T, w *world) {
				w.hosts.set("slow.test", after(40*time.Minute, taken))
				w.send("a", "x@slow.test")
				time.Sleep(time.Hour)
				if n := len(w.hosts.to("slow.test")); n != 1 || w.store.done() != 1 {
					t.Errorf("%d attempts, %d done", n, w.store.done())
				}
				for _, d := range w.store.look().finished {
					if d.Attempts != 1 {
						t.Errorf("%d attempts counted", d.Attempts)
					}
				}
			})
		})
	}
}

// What waits in memory for longer than its lease is claimed anew; nothing is
// tried twice, and no attempt is counted that was not made.
func TestLeaseRunsOutInMemory(t *testing.T) {
	o := Options{MaxPerDestination: 1, Schedule: relay.Schedule{RetryAfter: 10 * time.Second, RetryMax: 10 * time.Second}}
	bubble(t, o, func(t *testing.T, w *world) {
		w.hosts.set("one.test", after(9*time.Second, taken))
		for range 6 {
			w.send("a", "x@one.test")
		}
		time.Sleep(2 * time.Minute)
		if got := len(w.hosts.to("one.test")); got != 6 || w.store.done() != 6 {
			t.Errorf("%d attempts, %d done", got, w.store.done())
		}
		for k, d := range w.store.look().finished {
			if d.Attempts != 1 {
				t.Errorf("%s: attempt %d", k, d.Attempts)
			}
		}
	})
}

// away has a store that neither claims nor commits.
func away(what string) error {
	if what == "commit" || what == "claim" {
		return errDisk
	}
	return nil
}

// The store goes away for longer than a lease, while an outcome waits to be
// committed or an attempt goes on. When it is back, claims come to the delivery
// before the commit does. They pass over it: it is not attempted a second time,
// whether or not the relay stops meanwhile.
func TestStoreAwayLongerThanALease(t *testing.T) {
	for _, c := range []struct {
		name  string
		takes time.Duration // of the attempt, from the time when the store went
		stop  bool
	}{
		{"outcome waits", 0, false},
		{"stopped meanwhile", 0, true},
		{"attempt still on", time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, Options{Drain: time.Minute})
				w.hosts.set("one.test", func(ctx context.Context, job deliver.Job) relay.Result {
					w.hosts.set("one.test", nil)
					w.store.failing(away)
					select {
					case <-time.After(c.takes):
					case <-ctx.Done():
						t.Error("the attempt was cut off")
					}
					return taken(job)
				})
				w.start()
				w.send("a", "x@one.test")
				time.Sleep(10*time.Minute + 5*time.Second)
				// The commits fail on for a while, and the claims do not.
				w.store.failing(func(what string) error {
					if what == "commit" && w.store.passed == 0 {
						return errDisk
					}
					return nil
				})
				for w.store.look().passed == 0 {
					time.Sleep(time.Second)
				}
				if c.stop {
					w.stop()
					w.start()
				}
				time.Sleep(3 * time.Hour)
				w.stop()
				if n := len(w.hosts.to("one.test")); n != 1 || w.store.done() != 1 || w.store.look().stale != 0 {
					t.Errorf("%d attempts, %d done, %d stale", n, w.store.done(), w.store.look().stale)
				}
				for _, d := range w.store.look().finished {
					if d.Attempts != 1 {
						t.Errorf("%d attempts are counted", d.Attempts)
					}
				}
				if kinds := w.kinds(); kinds[events.Delivered] != 1 {
					t.Errorf("told %v", kinds)
				}
			})
		})
	}
}

// slowAccept has stored a message long before it says so.
type slowAccept struct {
	*memory
	lag time.Duration
}

func (s slowAccept) Accept(ctx context.Context, m relay.Message, ds []relay.Delivery, b relay.Draft, evs []events.Event) error {
	err := s.memory.Accept(ctx, m, ds, b, evs)
	time.Sleep(s.lag)
	return err
}

// What Accept was promised a place for is not claimed before Accept has returned,
// even if the lease ends before that. It is tried once then.
func TestAcceptLongerThanALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.over = slowAccept{w.store, 12 * time.Minute}
		w.start()
		w.send("a", "x@one.test")
		time.Sleep(time.Hour)
		w.stop()
		v := w.store.look()
		if v.passed == 0 || v.stale != 0 || len(w.hosts.to("one.test")) != 1 || len(v.finished) != 1 {
			t.Errorf("passed over %d times, %d stale, %d attempts, %d done", v.passed, v.stale, len(w.hosts.to("one.test")), len(v.finished))
		}
		for _, d := range v.finished {
			if d.Attempts != 1 {
				t.Errorf("%d attempts are counted", d.Attempts)
			}
		}
	})
}

// Two nodes on one store: what one of them leaves lying is tried by the
// other, and nothing by both.
func TestTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Options{
			MaxPerDestination: 2, MaxConnections: 8, Rescan: time.Second,
			Schedule: relay.Schedule{RetryAfter: 5 * time.Second, RetryMax: 5 * time.Second},
		}
		w := newWorld(t, o)
		w.hosts.set("one.test", after(9*time.Second, taken))
		w.start()
		other := newWorld(t, o)
		other.store, other.over, other.hosts = w.store, w.store, w.hosts
		other.start()
		for range 20 {
			w.send("a", "x@one.test")
		}
		time.Sleep(30 * time.Second)
		// Two nodes of two each, in three rounds.
		if got := w.store.done(); got < 10 {
			t.Errorf("%d done", got)
		}
		time.Sleep(2 * time.Minute)
		// What is stale is no outcome, but a claim that one node gave back
		// after the other had it.
		if got := len(w.hosts.to("one.test")); got != 20 || w.store.done() != 20 {
			t.Errorf("%d attempts, %d done", got, w.store.done())
		}
		w.stop()
		other.stop()
	})
}

func TestPanicInTellingIsSurvived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.onTell = func(e *events.Event) {
			if e.Kind == events.Delivered {
				panic("bug")
			}
		}
		w.start()
		w.send("a", "x@one.test")
		w.send("a", "x@one.test")
		time.Sleep(time.Minute)
		if w.store.done() != 2 || w.q.Destinations()[0].Busy != 0 {
			t.Errorf("%d done, queues %+v", w.store.done(), w.q.Destinations())
		}
		w.stop()
	})
}

// slowRenewals has a renewal take until a time and, from then on, until it is let
// go.
type slowRenewals struct {
	*memory
	until time.Time
	letGo chan struct{} // not of the bubble, so that no time goes by meanwhile
}

func (s slowRenewals) Commit(ctx context.Context, t relay.Transition) error {
	if len(t.Events) == 0 {
		time.Sleep(time.Until(s.until))
		<-s.letGo
	}
	return s.memory.Commit(ctx, t)
}

// A renewal keeps its job locked for as long as the store takes. The loop does not
// wait for that when it comes to the job, which it does when the attempt becomes
// slow.
func TestLoopWaitsForNoRenewal(t *testing.T) {
	letGo := make(chan struct{})
	synctest.Test(t, func(t *testing.T) {
		const lease = 2*attempt.SlowAfter - 2*time.Second // so the first renewal comes before
		w := newWorld(t, Options{Schedule: relay.Schedule{RetryAfter: lease, RetryMax: lease}})
		w.hosts.set("slow.test", after(40*time.Minute, taken))
		slow := time.Now().Add(attempt.SlowAfter + time.Minute)
		w.over = slowRenewals{w.store, slow, letGo}
		w.start()
		time.Sleep(time.Until(slow) - attempt.SlowAfter)
		w.send("a", "x@slow.test")
		time.Sleep(time.Until(slow))
		for w.q.Destinations()[0].Standing != fair.Slow {
			runtime.Gosched() // until the loop has come to it
		}
		if !w.q.Responds() {
			t.Error("the loop has ended")
		}
		close(letGo)
		time.Sleep(time.Hour)
		if n := len(w.hosts.to("slow.test")); n != 1 || w.store.done() != 1 || w.store.look().stale != 0 {
			t.Errorf("%d attempts, %d done, %d stale", n, w.store.done(), w.store.look().stale)
		}
		w.stop()
	})
}

// An attempt without end is cut off, and the next one is not cut off with it.
func TestEndlessAttemptIsCutOff(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("slow.test", after(100*time.Hour, taken))
		w.send("a", "x@slow.test")
		time.Sleep(65 * time.Minute)
		if k := w.kinds(); k[events.Deferred] != 1 {
			t.Errorf("told %v", k)
		}
		w.hosts.set("one.test", after(time.Second, taken))
		w.send("a", "x@one.test")
		time.Sleep(2 * time.Second)
		if k := w.kinds(); k[events.Delivered] != 1 {
			t.Errorf("told %v", k)
		}
	})
}

// A delivery that an operator took during an attempt is his.
func TestTakenDuringAnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.start()
		w.hosts.set("one.test", after(time.Minute, taken))
		m := w.send("a", "x@one.test")
		time.Sleep(time.Second)
		w.store.with(func() {
			d := w.store.queued[relay.DeliveryKey{Message: m.ID}]
			w.store.remove(d.Key)
			d.Due = d.Due.Add(time.Second)
			w.store.put(d)
		})
		var c relay.Claimed
		w.store.with(func() {
			c = relay.Claimed{Message: w.store.messages[m.ID], Delivery: w.store.queued[relay.DeliveryKey{Message: m.ID}]}
		})
		if err := w.q.Drop(context.Background(), c, "by hand"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		if k := w.kinds(); k[events.Bounce] != 1 || k[events.Delivered] != 1 {
			// One delivered event: the report's own.
			t.Errorf("told %v", k)
		}
		if w.store.look().stale != 1 || len(w.store.look().reports) != 1 {
			t.Errorf("%d stale, %d reports", w.store.look().stale, len(w.store.look().reports))
		}
		w.stop()
	})
}
