package queue

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/bounce"
	"tlsrelay/relay/deliver"
)

// due makes all that waits due, as an operator's retry does.
func (w *world) due() {
	w.store.with(func() {
		for _, d := range w.store.queued {
			w.store.remove(d.Key)
			d.Due = time.Now()
			w.store.put(d)
		}
	})
	w.q.Rescan()
}

// Mail of a disabled account waits, and so do its reports: nothing is tried, told or
// counted, however long that takes, and little is read. It goes on when the account
// is enabled again. Others' mail for the same place goes on meanwhile.
func TestDisabledAccountWaits(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.senders.disable("shop")
		w.pile(50, "shop", "x@one.test")
		n := relay.Notice{Recipients: []relay.NoticeRecipient{{Action: relay.ActionFailed, Recipient: recipients("x@b.test")[0], Status: "5.1.1"}}}
		report := bounce.Write(message("shop"), n, body("Subject: test\r\n\r\nhello\r\n"), bounce.Options{Hostname: "relay.test", Now: time.Now()})
		w.store.with(func() { w.store.add(report.Message, report.Deliveries) })
		w.q.Rescan()
		time.Sleep(time.Minute)
		w.send("mall", "y@one.test")
		time.Sleep(24 * time.Hour)
		v := w.store.look()
		if len(w.hosts.made()) != 1 || len(v.queued) != 51 || len(v.commits) != 1 || w.kinds()[events.Deferred] != 0 {
			t.Errorf("%d attempts, %d queued, %d commits, told %v", len(w.hosts.made()), len(v.queued), len(v.commits), w.kinds())
		}
		for _, d := range v.queued {
			if d.Attempts != 0 {
				t.Errorf("%d attempts are counted", d.Attempts)
			}
		}
		if v.claims > 1000 {
			t.Errorf("%d claims", v.claims)
		}
		w.senders.disable("")
		w.due()
		time.Sleep(time.Minute)
		if w.kinds()[events.Delivered] != 52 || len(w.store.look().queued) != 0 {
			t.Errorf("enabled again, told %v, %d queued", w.kinds(), len(w.store.look().queued))
		}
	})
}

// The lifetime ends all the same, and is told; the report waits like all mail of the
// account.
func TestLifetimeOfADisabledAccountsMail(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.senders.disable("shop")
		w.pile(3, "shop", "x@one.test")
		w.q.Rescan()
		time.Sleep(71 * time.Hour)
		if len(w.heard()) != 0 {
			t.Errorf("told before the end: %v", w.kinds())
		}
		time.Sleep(2 * time.Hour)
		v := w.store.look()
		if k := w.kinds(); len(w.hosts.made()) != 0 || len(v.reports) != 3 || len(v.queued) != 3 || k[events.Bounce] != 3 || k[events.Deferred] != 0 {
			t.Fatalf("%d attempts, %d reports, %d queued, told %v", len(w.hosts.made()), len(v.reports), len(v.queued), k)
		}
		for _, e := range w.heard() {
			if e.Kind == events.Bounce && (e.Reason != events.Expired || e.Status != "5.4.7" || e.Reply != "the sending account is disabled") {
				t.Errorf("told %+v", e)
			}
		}
		w.senders.disable("")
		w.due()
		synctest.Wait()
		if len(w.hosts.to("origin.test")) != 3 {
			t.Errorf("%d reports left", len(w.hosts.to("origin.test")))
		}
	})
}

// An attempt under way ends before the content, and is not made again.
func TestDisablingEndsAnAttempt(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, w *world) {
		w.hosts.set("one.test", func(ctx context.Context, job deliver.Job) relay.Result {
			for !job.Changed(&job) {
				time.Sleep(time.Second)
			}
			r := unreached(job)
			r.Feedback, r.Changed = relay.Neutral, true
			return r
		})
		w.send("shop", "x@one.test")
		time.Sleep(time.Minute)
		w.senders.disable("shop")
		time.Sleep(time.Hour)
		if v := w.store.look(); len(w.hosts.made()) != 1 || len(v.queued) != 1 || w.kinds()[events.Deferred] != 0 {
			t.Errorf("%d attempts, %d queued, told %v", len(w.hosts.made()), len(v.queued), w.kinds())
		}
		w.hosts.set("one.test", nil)
		w.senders.disable("")
		w.due()
		time.Sleep(time.Second)
		if w.kinds()[events.Delivered] != 1 {
			t.Errorf("enabled again, told %v", w.kinds())
		}
	})
}

// Nor is anything told where the destination is dead and deliveries are suspended.
func TestDisabledAccountAtADeadDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, Options{})
		w.hosts.set("dead.test", after(30*time.Second, unreached))
		w.senders.disable("shop")
		w.pile(200, "shop", "x@dead.test")
		w.pile(200, "mall", "x@dead.test")
		w.start()
		time.Sleep(48 * time.Hour)
		for _, e := range w.heard() {
			if e.Account == "shop" {
				t.Fatalf("told %+v", e)
			}
		}
		for _, a := range w.hosts.made() {
			if a.who == "shop" {
				t.Fatal("an attempt was made")
			}
		}
		w.stop()
	})
}
