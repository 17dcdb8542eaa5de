package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

// bubble runs a story on a running queue in synthetic time.
func bubble(t *testing.T, o Options, story func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, o)
		w.start()
		story(t, w)
		w.stop()
		if w.store.look().stale != 0 {
			t.Errorf("%d commits were stale", w.store.look().stale)
		}
	})
}

func TestFastPathWritesTwice(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		begun := time.Now()
		w.send("a", "x@one.test", "y@one.test", "z@two.test")
		synctest.Wait()
		if w.store.done() != 2 || w.store.look().claims != 0 || len(w.store.look().commits) != 2 {
			t.Errorf("%d done after %d claims and %d commits", w.store.done(), w.store.look().claims, len(w.store.look().commits))
		}
		if !time.Now().Equal(begun) {
			t.Error("time went by")
		}
		for k, d := range w.store.look().finished {
			if d.Attempts != 1 {
				t.Errorf("%s: %d attempts", k, d.Attempts)
			}
		}
		if got := w.kinds(); got[events.Processed] != 3 || got[events.Delivered] != 3 {
			t.Errorf("told %v", got)
		}
		if m := w.store.look().commits[0].Message; m.Deliveries != 2 {
			t.Errorf("%d deliveries", m.Deliveries)
		}
	})
}

func TestAcceptThatFailsLeavesNothingBehind(t *testing.T) {
	bubble(t, Options{MaxPerDestination: 2, MaxConnections: 2}, func(t *testing.T, w *world) {
		w.store.failing(func(what string) error {
			if what == "accept" {
				return errDisk
			}
			return nil
		})
		for range 10 { // more than there are places
			d := w.q.NewDraft()
			err := w.q.Accept(context.Background(), message("a"), recipients("x@one.test"), d)
			if !errors.Is(err, errDisk) || !d.(*draft).ended {
				t.Fatal(err, d.(*draft).ended)
			}
		}
		w.senders.fail(errDisk)
		d := w.q.NewDraft()
		if err := w.q.Accept(context.Background(), message("a"), recipients("x@one.test"), d); !errors.Is(err, errDisk) || !d.(*draft).ended {
			t.Fatal(err, d.(*draft).ended)
		}
		w.senders.fail(nil)
		w.store.failing(nil)
		w.send("a", "x@one.test")
		synctest.Wait()
		if w.store.done() != 1 || w.store.look().claims != 0 || len(w.kinds()) != 2 {
			t.Errorf("%d done, %d claims, told %v", w.store.done(), w.store.look().claims, w.kinds())
		}
	})
}

func TestRetriesFollowTheSchedule(t *testing.T) {
	o := Options{Schedule: relay.Schedule{RetryAfter: 4 * time.Minute, RetryMax: 9 * time.Minute, Lifetime: 40 * time.Minute}}
	bubble(t, o, func(t *testing.T, w *world) {
		w.hosts.set("one.test", after(0, func(job deliver.Job) relay.Result {
			r := unreached(job)
			r.Feedback = relay.Neutral
			return r
		}))
		begun := time.Now()
		w.send("a", "x@one.test")
		time.Sleep(time.Hour)
		var got []string
		for _, at := range w.hosts.to("one.test") {
			got = append(got, at.Sub(begun).String())
		}
		want := "0s 4m0s 10m0s 19m0s 28m0s 37m0s 40m0s"
		if strings.Join(got, " ") != want {
			t.Errorf("attempts after %v, want %s", got, want)
		}
		if k := w.kinds(); k[events.Deferred] != 6 || k[events.Bounce] != 1 {
			t.Errorf("told %v", k)
		}
	})
}

func TestDeadLaneLeavesTheOthersAlone(t *testing.T) {
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
			t.Error("a new message waits behind the dead lane")
		}
		time.Sleep(time.Hour)
		if got := len(w.hosts.to("dead.test")); got < 10 || got > 30 {
			t.Errorf("%d attempts at a dead destination in an hour", got)
		}
		for _, l := range w.q.Lanes() {
			if l.Lane == laneTo("dead.test") && (l.Claimed > 1 || l.Window != 1 || l.Last != events.ConnectFail) {
				t.Errorf("the dead lane: %+v", l)
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
func TestDeadLaneComesToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.hosts.set("dead.test", after(30*time.Second, unreached))
		w.pile(2000, "a", "x@dead.test")
		w.start()
		time.Sleep(12 * time.Hour)
		if k := w.kinds(); k[events.Deferred] < 2000 {
			t.Errorf("after twelve hours, %d deferrals told of 2000 messages", k[events.Deferred])
		}
		time.Sleep(72 * time.Hour)
		if got := w.kinds()[events.Bounce]; got != 2000 || len(w.store.look().queued) != 0 {
			t.Errorf("%d of 2000 at their end, %d queued", got, len(w.store.look().queued))
		}
		if got := len(w.hosts.to("dead.test")); got > 2500 {
			t.Errorf("%d attempts", got)
		}
		w.stop()
	})
}

func TestAccountsShareALane(t *testing.T) {
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
		if w.store.done() != firstWindow || time.Since(begun) != 19*time.Second {
			t.Fatalf("%d finished in %v", w.store.done(), time.Since(begun))
		}
		w.start()
		time.Sleep(time.Second)
		if got := len(w.hosts.to("slow.test")); got <= firstWindow {
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

// An attempt that outlasts its lease keeps it: nobody else gets the delivery,
// and the commit is good.
func TestLeaseIsRenewed(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
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
		other.store, other.hosts = w.store, w.hosts
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
		w.start()
		w.q.tell = func(e events.Event) {
			if e.Kind == events.Delivered {
				panic("bug")
			}
		}
		w.send("a", "x@one.test")
		w.send("a", "x@one.test")
		time.Sleep(time.Minute)
		if w.store.done() != 2 || w.q.Lanes()[0].Busy != 0 {
			t.Errorf("%d done, lanes %+v", w.store.done(), w.q.Lanes())
		}
		w.stop()
	})
}

func TestEndlessAttemptIsCutOff(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("slow.test", after(100*time.Hour, taken))
		w.send("a", "x@slow.test")
		time.Sleep(65 * time.Minute)
		if k := w.kinds(); k[events.Deferred] != 1 {
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

func TestOperatorRetry(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("one.test", after(time.Millisecond, unreached))
		for range 10 {
			w.send("a", "x@one.test")
		}
		time.Sleep(time.Second)
		w.hosts.set("one.test", nil)
		n := len(w.hosts.made())
		if n >= 10 {
			t.Fatalf("%d attempts at a dead lane", n)
		}
		dueNow := func() {
			w.store.with(func() {
				for k, d := range w.store.queued {
					w.store.remove(k)
					d.Due = time.Now()
					w.store.put(d)
				}
			})
		}
		dueNow()
		w.q.Rescan()
		time.Sleep(100 * time.Millisecond)
		if w.store.done() != 10 {
			t.Errorf("%d of 10 delivered", w.store.done())
		}
	})
}

func TestKickEndsTheCoolOff(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("one.test", after(time.Millisecond, unreached))
		for range 10 {
			w.send("a", "x@one.test")
		}
		time.Sleep(time.Second)
		before := len(w.hosts.to("one.test"))
		if i := slices.IndexFunc(w.q.Lanes(), func(l LaneStatus) bool { return l.CoolOff.After(time.Now()) && l.Standing == Laggard }); i < 0 {
			t.Fatalf("no lane is cooling off: %+v", w.q.Lanes())
		}
		w.q.Kick(laneTo("one.test"))
		synctest.Wait()
		if got := len(w.hosts.to("one.test")); got != before+1 {
			t.Errorf("%d attempts after the kick, %d before", got, before)
		}
		w.q.Kick(laneTo("nowhere.test"))
	})
}

func TestRetryFindsWhatNobodyToldOf(t *testing.T) {
	bubble(t, Options{Rescan: time.Hour}, func(t *testing.T, w *world) {
		w.pile(3, "a", "x@one.test")
		w.q.Retry(relay.Backlog{Lane: laneTo("one.test"), Account: "a", Due: time.Now()})
		synctest.Wait()
		if w.store.done() != 3 {
			t.Errorf("%d done", w.store.done())
		}
		w.pile(3, "a", "x@two.test") // another node's, found by reading
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.store.done() != 6 {
			t.Errorf("%d done", w.store.done())
		}
	})
}

func TestPanicIsATemporaryFailure(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("one.test", func(context.Context, deliver.Job) relay.Result { panic("bug") })
		w.hosts.set("two.test", func(context.Context, deliver.Job) relay.Result { return relay.Result{} })
		w.send("a", "x@one.test", "x@two.test")
		synctest.Wait()
		w.hosts.set("one.test", nil)
		w.hosts.set("two.test", nil)
		if k := w.kinds(); k[events.Deferred] != 2 {
			t.Fatalf("told %v", k)
		}
		for _, e := range w.heard() {
			if e.Kind == events.Deferred && (e.Reason != events.Internal || strings.Contains(e.Reply, "bug")) {
				t.Errorf("told %+v", e)
			}
		}
		time.Sleep(6 * time.Minute)
		if w.store.done() != 2 {
			t.Errorf("%d done", w.store.done())
		}
	})
}

func TestStoreFaultsPass(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		until := time.Now().Add(2 * time.Minute)
		w.store.failing(func(what string) error {
			if what != "accept" && what != "body" && time.Now().Before(until) {
				return errDisk
			}
			return nil
		})
		w.send("a", "x@one.test")  // its commit fails
		w.pile(5, "a", "x@p.test") // and the claims of these
		w.q.Retry(relay.Backlog{Lane: laneTo("p.test"), Account: "a", Due: time.Now()})
		time.Sleep(time.Minute)
		if k := w.kinds(); k[events.Delivered] != 0 {
			t.Error("told of what was not committed")
		}
		time.Sleep(2 * time.Minute)
		if w.store.done() != 6 || len(w.hosts.to("one.test")) != 1 {
			t.Errorf("%d done, %d attempts at one.test", w.store.done(), len(w.hosts.to("one.test")))
		}
	})
}

func TestMissingBodyDefers(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.store.failing(func(what string) error {
			if what == "body" {
				return relay.ErrNoBody
			}
			return nil
		})
		w.send("a", "x@one.test")
		synctest.Wait()
		if k := w.kinds(); k[events.Deferred] != 1 || len(w.hosts.made()) != 0 {
			t.Errorf("told %v after %d attempts", k, len(w.hosts.made()))
		}
	})
}

func TestBlockIsReportedWithoutDemands(t *testing.T) {
	bubble(t, Options{Hostname: "relay.test"}, func(t *testing.T, w *world) {
		w.hosts.set("one.test", after(0, refused))
		w.send("tenant", "x@one.test")
		synctest.Wait()
		if len(w.store.look().reports) != 1 || w.store.done() != 2 {
			t.Fatalf("%d reports, %d done", len(w.store.look().reports), w.store.done())
		}
		report := w.hosts.made()[1].job
		if report.Delivery.Lane != laneTo("origin.test") || !report.Message.Report || report.Sender != (policy.Sender{}) {
			t.Errorf("the report went as %+v", report)
		}
		for _, m := range w.senders.heard() {
			if m.Report {
				t.Error("asked for the demands on a report")
			}
		}
		if !strings.Contains(string(w.store.look().reports[0].Body), "dns; relay.test") {
			t.Error("the report does not name its MTA")
		}
		if l := w.hosts.made()[0].job.Delivery.Lane; l.Class != policy.ClassEncrypt {
			t.Errorf("lane %+v", l)
		}
	})
}

func TestGuardPutsDropsOff(t *testing.T) {
	bubble(t, Options{GuardDomains: 5, GuardWithin: 10 * time.Minute}, func(t *testing.T, w *world) {
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			w.hosts.set(name+".test", after(0, refused))
			w.send("tenant", "x@"+name+".test")
			w.send("other", "x@fine.test") // opportunistic: proves nothing
			synctest.Wait()
		}
		if k := w.kinds(); k[events.Bounce] != 4 || k[events.Deferred] != 2 || !w.q.GuardHolds() {
			t.Fatalf("told %v, holds %t", k, w.q.GuardHolds())
		}
		for _, e := range w.heard() {
			if e.Kind == events.Deferred && e.Reason != events.StartTLSNotOffered {
				t.Errorf("told %+v", e)
			}
		}
		w.q.ReleaseGuard()
		time.Sleep(6 * time.Minute)
		if k := w.kinds(); k[events.Bounce] != 6 {
			t.Errorf("after the release, told %v", k)
		}
	})
}
