package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/bounce"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/queue/fair"
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
		if got := w.kinds(); got[events.Processed] != 3 || got[events.Delivered] != 3 || w.heard()[0].Kind != events.Processed {
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
			d := w.q.NewDraft("")
			err := w.q.Accept(context.Background(), message("a"), recipients("x@one.test"), d)
			if !errors.Is(err, errDisk) || !d.(*draft).ended {
				t.Fatal(err, d.(*draft).ended)
			}
		}
		w.senders.fail(errDisk)
		d := w.q.NewDraft("")
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
			t.Fatalf("%d attempts at a dead destination", n)
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

func TestRescanEndsTheCoolOff(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("one.test", after(time.Millisecond, unreached))
		for range 10 {
			w.send("a", "x@one.test")
		}
		time.Sleep(time.Second)
		before := len(w.hosts.to("one.test"))
		if i := slices.IndexFunc(w.q.Destinations(), func(l DestinationStatus) bool { return l.CoolOff.After(time.Now()) && l.Standing == fair.Slow }); i < 0 {
			t.Fatalf("no destination is cooling off: %+v", w.q.Destinations())
		}
		w.q.Rescan()
		synctest.Wait()
		if got := len(w.hosts.to("one.test")); got != before+1 {
			t.Errorf("%d attempts after the rescan, %d before", got, before)
		}
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

// particular cannot write down any evidence.
type particular struct{ *memory }

func (s particular) Commit(ctx context.Context, t relay.Transition) error {
	if t.After.Last != nil && len(t.After.Last.Hosts) > 0 {
		return relay.ErrUnrecordable
	}
	return s.memory.Commit(ctx, t)
}

// Evidence that cannot be recorded, of whatever a host came up with, does not
// cost the outcome.
func TestUnrecordableEvidence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.over = particular{w.store}
		w.start()
		seen := func(then func(deliver.Job) relay.Result) func(context.Context, deliver.Job) relay.Result {
			return func(_ context.Context, job deliver.Job) relay.Result {
				r := then(job)
				r.Attempt.Hosts = []relay.HostEvidence{{Host: "mx.test"}}
				r.History.Since = r.Attempt.At
				return r
			}
		}
		w.hosts.set("one.test", seen(taken))
		w.hosts.set("two.test", seen(unreached))
		w.send("a", "x@one.test")
		w.send("a", "x@two.test")
		time.Sleep(2 * time.Second)
		if k := w.kinds(); k[events.Delivered] != 1 || k[events.Deferred] != 1 || w.store.done() != 1 || len(w.hosts.made()) != 2 {
			t.Errorf("told %v, %d done, %d attempts", k, w.store.done(), len(w.hosts.made()))
		}
		for _, d := range w.store.look().queued {
			if d.Last == nil || d.Last.At.IsZero() || d.Last.Hosts != nil || d.History.Since.IsZero() {
				t.Errorf("last attempt %+v, history %+v", d.Last, d.History)
			}
		}
		w.stop()
	})
}

// An outcome that cannot be committed shows, is tried again at a bounded rate, and is
// told only once it is.
func TestCommitThatKeepsFailing(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		shown := func() float64 {
			all, err := w.reg.Gather()
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(all, func(f *dto.MetricFamily) bool { return f.GetName() == "tlsrelay_queue_uncommitted_outcomes" })
			return all[i].GetMetric()[0].GetGauge().GetValue()
		}
		var tries atomic.Int32
		w.hosts.set("bad.test", func(_ context.Context, job deliver.Job) relay.Result {
			w.store.failing(func(what string) error {
				if what == "commit" && tries.Load() < 20 {
					tries.Add(1)
					return errDisk
				}
				return nil
			})
			return taken(job)
		})
		w.send("a", "x@bad.test")
		time.Sleep(time.Minute)
		if n := tries.Load(); shown() != 1 || n < 8 || n > 14 {
			t.Errorf("%v uncommitted after %d tries in a minute", shown(), n)
		}
		if w.kinds()[events.Delivered] != 0 {
			t.Error("told of what was not committed")
		}
		time.Sleep(3 * time.Minute)
		if shown() != 0 || w.kinds()[events.Delivered] != 1 || len(w.hosts.made()) != 1 {
			t.Errorf("%v uncommitted, told %v, %d attempts", shown(), w.kinds(), len(w.hosts.made()))
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

// Mail of an account that was deleted ends at the next attempt, undelivered
// and with a report that goes without demands and without the body.
func TestDeletedAccount(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("one.test", after(0, unreached))
		w.send("a", "x@one.test")
		synctest.Wait()
		w.senders.fail(fmt.Errorf("no such account: %w", account.ErrNotFound))
		time.Sleep(6 * time.Minute)
		v := w.store.look()
		if len(w.hosts.to("one.test")) != 1 || len(v.reports) != 1 || len(v.queued) != 0 {
			t.Fatalf("%d attempts, %d reports, %d queued", len(w.hosts.to("one.test")), len(v.reports), len(v.queued))
		}
		for _, c := range v.commits {
			for _, e := range c.Events {
				if e.Kind == events.Bounce && (e.Type != events.TypeBounce || e.Status != "5.7.1" || e.Reason != events.AccountGone ||
					e.Reply != "the sending account no longer exists") {
					t.Errorf("told %+v", e)
				}
			}
			if len(c.Blocks) != 0 {
				t.Errorf("block rows %+v", c.Blocks)
			}
		}
		if w.kinds()[events.Bounce] != 1 || strings.Contains(string(v.reports[0].Body), "hello") {
			t.Errorf("told %v, reported\n%s", w.kinds(), v.reports[0].Body)
		}
		if last := w.hosts.made()[1].job; !last.Message.Report || last.Sender != (policy.Sender{}) {
			t.Errorf("the report went as %+v", last)
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
			t.Errorf("queue %+v", l)
		}
	})
}

// TestDemandMadeLater: what counts is what is demanded at the attempt, not
// what was when the message came.
func TestDemandMadeLater(t *testing.T) {
	bubble(t, Options{GuardDomains: 5, GuardWithin: 10 * time.Minute}, func(t *testing.T, w *world) {
		w.hosts.set("a.test", after(0, unknownUser))
		w.pile(1, "tenant", "x@a.test")
		for _, name := range []string{"b", "c", "d", "e", "f", "g"} {
			w.hosts.set(name+".test", after(0, refused))
			w.pile(1, "tenant", "x@"+name+".test")
		}
		w.q.Rescan()
		time.Sleep(time.Second)
		if k := w.kinds(); k[events.Deferred] != 2 || !w.q.GuardHolds() {
			t.Errorf("told %v, holds %t", k, w.q.GuardHolds())
		}
		for _, r := range w.store.look().reports {
			if strings.Contains(string(r.Body), "message/rfc822") {
				t.Errorf("a report returns the body:\n%s", r.Body)
			}
		}
	})
}

// No report returns the body of mail whose sender demands TLS by now, in
// whatever way it ended: with its destination dead and no attempt made, by an
// operator, or by a fault of our own.
func TestNoBodyUnderALaterDemand(t *testing.T) {
	for name, story := range map[string]func(w *world){
		"suspended": func(w *world) {
			w.hosts.set("x.test", after(30*time.Second, unreached))
			w.pile(200, "tenant", "x@x.test")
		},
		"dropped": func(w *world) {
			w.hosts.set("x.test", after(0, unreached))
			w.pile(1, "tenant", "x@x.test")
			for _, d := range w.store.look().queued {
				var m relay.Message
				w.store.with(func() { m = w.store.messages[d.Key.Message] })
				if err := w.q.Drop(context.Background(), relay.Claimed{Message: m, Delivery: d}, "by hand"); err != nil {
					w.t.Error(err)
				}
			}
		},
		"panicked": func(w *world) {
			w.hosts.set("x.test", func(context.Context, deliver.Job) relay.Result { panic("a bug") })
			w.pile(1, "tenant", "x@x.test")
		},
		"nothing known": func(w *world) {
			w.senders.fail(errDisk)
			w.pile(1, "tenant", "x@x.test")
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Options{}, func(t *testing.T, w *world) {
				w.t = t
				story(w)
				w.q.Rescan()
				time.Sleep(80 * time.Hour)
				synctest.Wait()
				reports := w.store.look().reports
				if len(reports) == 0 {
					t.Fatal("nothing was reported")
				}
				for _, r := range reports {
					if strings.Contains(string(r.Body), "message/rfc822") {
						t.Fatalf("one of %d reports returns the body:\n%s", len(reports), r.Body)
					}
				}
			})
		})
	}
}

// A report that was written with the original's content when nothing was demanded
// leaves without it once something is; one under way is stopped, and leaves again.
func TestReportLeavesUnderALaterDemand(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		var bodies []string
		var changed []bool
		w.hosts.set("origin.test", func(ctx context.Context, job deliver.Job) relay.Result {
			content, _ := io.ReadAll(job.Body.NewReader())
			bodies = append(bodies, string(content))
			changed = append(changed, job.Changed(&job))
			w.senders.demand("free", true)
			changed = append(changed, job.Changed(&job))
			r := after(0, unreached)(ctx, job)
			r.Changed = changed[len(changed)-1]
			return r
		})
		m := message("free")
		n := relay.Notice{Recipients: []relay.NoticeRecipient{{Action: relay.ActionFailed, Recipient: recipients("x@b.test")[0], Status: "5.1.1"}}}
		rep := bounce.Write(m, n, body("Subject: test\r\n\r\nhello\r\n"), bounce.Options{Hostname: "relay.test", Now: time.Now()})
		w.store.with(func() {
			w.store.bodies[rep.Message.ID] = rep.Body
			w.store.add(rep.Message, rep.Deliveries)
		})
		w.q.Rescan()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(bodies) < 2 || !strings.Contains(bodies[0], "hello") || strings.Contains(bodies[1], "hello") || !strings.Contains(bodies[1], "Subject: test") {
			t.Errorf("%d attempts: %q", len(bodies), bodies)
		}
		if !slices.Equal(changed[:4], []bool{false, true, false, false}) {
			t.Errorf("changed: %v", changed)
		}
	})
}

// A delivery that runs out of time, at a dead destination or by a fault of our own, is
// not told as a TLS block for what nobody demands any more.
func TestExpiryAfterLooserSettings(t *testing.T) {
	for name, host := range map[string]func(context.Context, deliver.Job) relay.Result{
		"dead": after(30*time.Second, func(job deliver.Job) relay.Result {
			job.Delivery.History = policy.History{} // as the engine does without demands
			return unreached(job)
		}),
		"panic": func(context.Context, deliver.Job) relay.Result { panic("a bug") },
	} {
		t.Run(name, func(t *testing.T) { expireLoosened(t, host) })
	}
}

func expireLoosened(t *testing.T, host func(context.Context, deliver.Job) relay.Result) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("x.test", host)
		w.pile(200, "loosened", "x@x.test")
		w.store.with(func() {
			for k, d := range w.store.queued {
				d.History.Since = time.Now() // under on_violation: defer, without an end
				d.History.Violation.Host = "mx.x.test"
				w.store.queued[k] = d
			}
		})
		w.q.Rescan()
		time.Sleep(80 * time.Hour)
		synctest.Wait()
		ended := 0
		for _, e := range w.heard() {
			if e.Kind != events.Bounce {
				continue
			}
			if ended++; e.Reply == events.TLSBlocked {
				t.Fatal("told as a TLS block")
			}
		}
		if ended != 200 {
			t.Errorf("%d ended", ended)
		}
	})
}

// Faults of our own are no attempts that went well, and do not keep the guard from
// holding.
func TestGuardIgnoresFaultsOfOurOwn(t *testing.T) {
	bubble(t, Options{GuardDomains: 5, GuardWithin: 10 * time.Minute}, func(t *testing.T, w *world) {
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			w.hosts.set(name+".ours.test", func(context.Context, deliver.Job) relay.Result { panic("a bug") })
			w.send("tenant", "x@"+name+".ours.test")
			w.hosts.set(name+".test", after(0, refused))
			w.send("tenant", "x@"+name+".test")
		}
		time.Sleep(time.Second)
		if !w.q.GuardHolds() {
			t.Error("the guard does not hold")
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

// What has been delivered leaves nothing in memory behind.
func TestQueuesAreForgotten(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		for i := range 50 {
			w.send("a", fmt.Sprintf("x@d%d.test", i))
		}
		synctest.Wait()
		if n := w.store.done(); n != 50 {
			t.Fatalf("%d were delivered", n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(w.q.Destinations()); n != 0 {
			t.Errorf("%d queues are in memory an hour later", n)
		}
	})
}

// beforeAccept does something just before a message is stored.
type beforeAccept struct {
	relay.Store
	do func()
}

func (b beforeAccept) Accept(ctx context.Context, m relay.Message, ds []relay.Delivery, body relay.Draft, evs []events.Event) error {
	b.do()
	return b.Store.Accept(ctx, m, ds, body, evs)
}

// A message that was on its way in when Run began, and scanned the store before
// it was there, is delivered at once all the same.
func TestAcceptAcrossTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		store := beforeAccept{w.over, func() {
			go func() { ended <- w.q.Run(ctx) }()
			synctest.Wait()
		}}
		w.q = New(w.o, store, w.hosts, w.senders, w.told, zap.NewNop(), nil)
		w.send("a", "x@one.test")
		synctest.Wait()
		if n := w.store.done(); n != 1 {
			t.Errorf("%d delivered", n)
		}
		cancel()
		<-ended
	})
}
