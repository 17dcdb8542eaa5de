package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

func testMessage(h *harness) {
	m, ds := h.queued("a@example.com", "b@example.com")
	for _, again := range []bool{false, true} {
		if again {
			h.reopen()
		}
		got := h.backlog()
		h.equal(len(got), 1, "backlogs")
		h.equal(got[0].Lane, ds[0].Lane, "lane")
		h.equal(got[0].Account, m.Account, "account")
		if !got[0].Due.Equal(m.Accepted) {
			h.Fatalf("due %v, want %v", got[0].Due, m.Accepted)
		}
		body, err := h.body(m.ID)
		h.ok(err)
		h.equal(body, "body of "+m.ID.String(), "body")
	}
	c := h.claimOne(ds[0].Lane, h.now)
	h.equal(c.Delivery.Attempts, 1, "attempts")
	h.equal(c.Message.UniqueArgs, m.UniqueArgs, "message")
	h.equal(len(c.Delivery.Recipients), 2, "recipients")
	h.reopen()
	h.equal(len(h.claim(ds[0].Lane, h.now, 10)), 0, "claimed under a lease")

	h.ok(h.Commit(h.ctx, Delivered(c, h.now)))
	h.reopen()
	h.equal(len(h.backlog()), 0, "backlogs after the end")
	if _, err := h.body(m.ID); !errors.Is(err, relay.ErrNotFound) {
		h.Fatalf("the body is still there: %v", err)
	}
	ended, evidence, err := h.Message(h.ctx, m.ID)
	h.ok(err)
	h.equal(ended.SMTPID, m.SMTPID, "message as evidence")
	h.equal(len(evidence), 1, "evidence")
	h.equal(evidence[0].Recipients[1].State, relay.Delivered, "state")
	h.equal(evidence[0].Last.Hosts[0].Address, "192.0.2.1", "host")
	if _, _, err := h.Message(h.ctx, relay.NewMessageID(h.now)); !errors.Is(err, relay.ErrNotFound) {
		h.Fatalf("a message that never was: %v", err)
	}
}

func testAcceptedClaimed(h *harness) {
	m, ds := h.message("a@example.com", "b@example.net")
	ds[0].Attempts, ds[0].Due = 1, h.now.Add(time.Hour)
	h.accept(m, ds, "x")
	h.equal(len(h.claim(ds[0].Lane, h.now, 10)), 0, "claimed by Accept")
	h.equal(len(h.claim(ds[1].Lane, h.now, 10)), 1, "not claimed by Accept")
	// A crashed worker's lease ends.
	c := h.claimOne(ds[0].Lane, h.now.Add(time.Hour))
	h.equal(c.Delivery.Attempts, 2, "attempts")
	// What the caller of Accept holds is as good as what Claim gives.
	m, ds = h.message("a@example.org")
	ds[0].Attempts, ds[0].Due = 1, time.Now().Add(time.Hour) // with a monotonic reading
	h.accept(m, ds, "x")
	h.ok(h.Commit(h.ctx, Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, h.now)))
}

func testDrafts(h *harness) {
	d := h.NewDraft("")
	d.Write([]byte("abc"))
	h.equal(d.Size(), 3, "size")
	d.Discard()
	m, ds := h.message("a@example.com")
	if err := h.Accept(h.ctx, m, ds, d, nil); err == nil {
		h.Fatal("a discarded draft was accepted")
	}
	d = h.NewDraft("")
	h.ok(h.Accept(h.ctx, m, ds, d, nil))
	if err := h.Accept(h.ctx, m, ds, d, nil); err == nil {
		h.Fatal("a draft was accepted twice")
	}
	if _, err := d.Write([]byte("x")); err == nil {
		h.Fatal("a draft was written to after its end")
	}
	gone, cancel := context.WithCancel(h.ctx)
	cancel()
	m, ds = h.message("a@example.net")
	if err := Accept(gone, h.Store, m, ds, nil); !errors.Is(err, context.Canceled) {
		h.Fatalf("accepted for a client that is gone: %v", err)
	}
	h.equal(len(h.backlog()), 1, "messages")
}

func testLargeBody(h *harness) {
	big := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // 1 MiB
	m, ds := h.message("a@example.com")
	d := h.NewDraft("")
	for chunk := big; len(chunk) > 0; {
		n := min(len(chunk), 100_000)
		kept := string(chunk[:n])
		if _, err := d.Write(chunk[:n]); err != nil || string(chunk[:n]) != kept {
			h.Fatalf("write: %v; or it changed what is not its own", err)
		}
		chunk = chunk[n:]
	}
	h.equal(d.Size(), len(big), "size")
	h.ok(h.Accept(h.ctx, m, ds, d, nil))
	h.reopen()
	got, err := h.body(m.ID)
	h.ok(err)
	if got != string(big) {
		h.Fatal("not the body that was accepted")
	}
	c := h.claimOne(ds[0].Lane, h.now)
	h.equal(c.Message.Size, len(big), "size")
	h.ok(h.Commit(h.ctx, Delivered(c, h.now)))
	if _, err := h.body(m.ID); !errors.Is(err, relay.ErrNotFound) {
		h.Fatalf("the body is still there: %v", err)
	}
	d = h.NewDraft("")
	d.Write(big)
	d.Discard()
}

func testClaimOrder(h *harness) {
	for i := range 20 {
		m, ds := h.message("a@example.com")
		ds[0].Due = h.now.Add(time.Duration((i*7)%20) * time.Second)
		h.accept(m, ds, "x")
	}
	other, ods := h.message("a@example.com")
	other.Account, ods[0].Account = "2", "2"
	h.accept(other, ods, "x")
	strict, sds := h.message("a@example.com")
	sds[0].Lane.Class = "v"
	h.accept(strict, sds, "x")

	lease := func(n int) time.Time { return h.now.Add(time.Duration(n) * time.Hour) }
	got, next, err := h.Claim(h.ctx, lane("example.com"), account.Parent, h.now.Add(9*time.Second), 4, lease, nil)
	h.ok(err)
	h.equal(len(got), 4, "claimed")
	h.equal(next.Sub(h.now), 4*time.Second, "next")
	more, next, err := h.Claim(h.ctx, lane("example.com"), account.Parent, h.now.Add(9*time.Second), 100, lease, nil)
	h.ok(err)
	h.equal(len(more), 6, "claimed")
	h.equal(next.Sub(h.now), 10*time.Second, "next")
	rest, next, err := h.Claim(h.ctx, lane("example.com"), account.Parent, h.now.Add(time.Minute), 20, lease, nil)
	h.ok(err)
	h.equal(len(rest), 10, "claimed")
	h.equal(next.Sub(h.now), time.Hour, "next is the first lease's end")
	for _, c := range append(got, more...) {
		h.equal(c.Delivery.Due.Sub(h.now), time.Hour, "lease")
	}
	got, next, err = h.Claim(h.ctx, lane("example.com"), "2", h.now, 100, lease, nil)
	h.ok(err)
	h.equal(len(got), 1, "the other account's")
	h.equal(next.IsZero(), true, "none waits after it")
	_, next, err = h.Claim(h.ctx, lane("nobody.example"), "2", h.now, 100, lease, nil)
	h.ok(err)
	h.equal(next.IsZero(), true, "next of an empty lane")
}

func testClaimExclusive(h *harness) {
	const all = 200
	for range all {
		h.queued("a@example.com")
	}
	var mu sync.Mutex
	seen := make(map[relay.DeliveryKey]int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				got, _, err := h.Claim(h.ctx, lane("example.com"), account.Parent, h.now, 7, func(int) time.Time { return h.now.Add(time.Hour) }, nil)
				if err != nil || len(got) == 0 {
					return
				}
				mu.Lock()
				for _, c := range got {
					seen[c.Delivery.Key]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	h.equal(len(seen), all, "claimed")
	for k, n := range seen {
		h.equal(n, 1, k.String())
	}
}

// A claim passes over what its caller still works on, its lease over or not, and
// comes back to it once that is no longer so.
func testClaimInHand(h *harness) {
	h.queued("a@example.com")
	first := h.claimOne(lane("example.com"), h.now).Delivery.Key
	later := h.now.Add(time.Hour) // the end of that lease
	h.queued("b@example.com")
	m, ds := h.message("c@example.com")
	ds[0].Due = later.Add(time.Minute)
	h.accept(m, ds, "x")
	inHand := func(k relay.DeliveryKey) bool { return k == first }
	lease := func(int) time.Time { return later.Add(time.Hour) }
	got, next, err := h.Claim(h.ctx, lane("example.com"), account.Parent, later, 10, lease, inHand)
	h.ok(err)
	h.equal(len(got), 1, "claimed")
	h.equal(got[0].Delivery.Key == first, false, "what is in hand was claimed")
	h.equal(next.Sub(later), time.Minute, "next")
	h.equal(h.claimOne(lane("example.com"), later).Delivery.Key, first, "no longer in hand")
}

// A delivery may become due before those already claimed: a retry, a late
// commit of another message, a clock that was set back.
func testClaimLate(h *harness) {
	for round := range 5 {
		h.queued("a@example.com")
		h.queued("b@example.com")
		h.equal(len(h.claim(lane("example.com"), h.now, 10)), 2, "claimed")
		m, ds := h.message("c@example.com")
		ds[0].Due = h.now.Add(-time.Duration(round+1) * time.Minute)
		h.accept(m, ds, "x")
		h.equal(len(h.claim(lane("example.com"), h.now, 10)), 1, "came late")
		h.equal(len(h.claim(lane("example.com"), h.now, 10)), 0, "nothing left")
	}
	h.equal(len(h.claim(lane("example.com"), h.now.Add(time.Hour), 100)), 15, "after the lease")
}

func testDeferral(h *harness) {
	m, _ := h.queued("a@example.com")
	c := h.claimOne(lane("example.com"), h.now)
	t := Deferred(c, h.now)
	h.ok(h.Commit(h.ctx, t))
	h.reopen()
	h.equal(len(h.claim(lane("example.com"), t.After.Due.Add(-1), 10)), 0, "before its time")
	c = h.claimOne(lane("example.com"), t.After.Due)
	h.equal(c.Delivery.Attempts, 2, "attempts")
	h.equal(c.Delivery.Last.Reason, events.ReplyTemp, "reason")
	h.equal(c.Delivery.Recipients[0].Reply, "451 not now", "reply")
	_, err := h.body(m.ID)
	h.ok(err)
}

func testSeveralDestinations(h *harness) {
	m, ds := h.queued("a@example.com", "b@example.net", "c@example.org")
	h.equal(len(ds), 3, "deliveries")
	for i, d := range ds {
		_, err := h.body(m.ID)
		h.ok(err)
		c := h.claimOne(d.Lane, h.now)
		if i == 1 {
			h.ok(h.Commit(h.ctx, Deferred(c, h.now)))
			c = h.claimOne(d.Lane, h.now.Add(time.Hour))
		}
		h.ok(h.Commit(h.ctx, Delivered(c, h.now)))
		h.reopen()
		_, all, err := h.Message(h.ctx, m.ID)
		h.ok(err)
		h.equal(len(all), 3, "waiting and finished")
		h.equal(all[i].Recipients[0].State, relay.Delivered, "state")
	}
	if _, err := h.body(m.ID); !errors.Is(err, relay.ErrNotFound) {
		h.Fatalf("the body is still there: %v", err)
	}
}

// Two deliveries of one message that end at the same moment must not both
// leave the end of the message to the other.
func testSeveralAtOnce(h *harness) {
	for range 20 {
		var rcpts []string
		for i := range 8 {
			rcpts = append(rcpts, fmt.Sprintf("a@d%d.example", i))
		}
		m, ds := h.queued(rcpts...)
		var wg sync.WaitGroup
		for _, d := range ds {
			c := h.claimOne(d.Lane, h.now)
			wg.Go(func() {
				if err := h.Commit(h.ctx, Delivered(c, h.now)); err != nil {
					h.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := h.body(m.ID); !errors.Is(err, relay.ErrNotFound) {
			h.Fatalf("the body is still there: %v", err)
		}
	}
}

func testStale(h *harness) {
	quick := h.commitStale()
	t := Delivered(quick, h.now)
	h.ok(h.Commit(h.ctx, t))
	if err := h.Commit(h.ctx, t); !errors.Is(err, relay.ErrNotFound) {
		h.Fatalf("committed twice: %v", err)
	}
}

// commitStale claims a delivery twice, the second time when the first lease has
// ended, tries to commit for the first claim and gives the second.
func (h *harness) commitStale() (second relay.Claimed) {
	h.Helper()
	m, ds := h.message("a@example.com")
	h.ok(h.Accept(h.ctx, m, ds, h.NewDraft(""), nil))
	slow := h.claimOne(lane("example.com"), h.now)
	second = h.claimOne(lane("example.com"), h.now.Add(time.Hour))
	for _, t := range []relay.Transition{Blocked(slow, h.now), Delivered(slow, h.now), Deferred(slow, h.now)} {
		if err := h.Commit(h.ctx, t); !errors.Is(err, relay.ErrStale) {
			h.Fatalf("committed for a claim that had ended: %v", err)
		}
	}
	return second
}

func testStaleLeavesNothing(h *harness) {
	h.ok(PutEndpoint(h.ctx, h, endpoint("e1", "1", h.now)))
	h.commitStale()
	rows, err := h.Rows(h.ctx, "e1", webhook.From(0), 1<<20)
	h.ok(err)
	h.equal(len(rows), 0, "events of stale transitions")
	_, total, err := h.Blocks(h.ctx, "1", events.BlockFilter{})
	h.ok(err)
	h.equal(total, 0, "blocks of stale transitions")
}

func testReport(h *harness) {
	m, ds := h.queued("a@example.com")
	c := h.claimOne(ds[0].Lane, h.now)
	t := Blocked(c, h.now)
	if t.Notice == nil {
		h.Fatal("a block asks for a report")
	}
	for _, size := range []int{100, 600_000} {
		report, rds := h.message("sender@example.org")
		report.Report, report.From = true, relay.Address{}
		body := strings.Repeat("r", size)
		t.Report = &relay.Report{Message: report, Deliveries: rds, Body: []byte(body)}
		h.ok(h.Commit(h.ctx, t))
		h.reopen()
		got := h.claimOne(rds[0].Lane, h.now)
		h.equal(got.Message.Report, true, "report")
		stored, err := h.body(report.ID)
		h.ok(err)
		if stored != body {
			h.Fatal("not the report's body")
		}
		h.ok(h.Commit(h.ctx, Delivered(got, h.now)))
		m, ds = h.queued("b@example.com")
		t = Blocked(h.claimOne(ds[0].Lane, h.now), h.now)
	}
	_, err := h.body(m.ID)
	h.ok(err)
}

func testBacklogs(h *harness) {
	want := 0
	for i := range 30 {
		for _, who := range []account.ID{"1", "2"} {
			m, ds := h.message(fmt.Sprintf("a@d%d.example", i))
			m.Account, ds[0].Account = who, who
			h.accept(m, ds, "x")
			m, ds = h.message(fmt.Sprintf("a@d%d.example", i))
			m.Account, ds[0].Account = who, who
			ds[0].Due = h.now.Add(-time.Minute)
			h.accept(m, ds, "x")
			want++
		}
	}
	all := h.backlog()
	h.equal(len(all), want, "backlogs")
	for _, b := range all {
		if !b.Due.Equal(h.now.Add(-time.Minute)) {
			h.Fatalf("due %v is not of the first", b.Due)
		}
	}
	n := 0
	h.ok(h.Backlogs(h.ctx, func(b relay.Backlog) bool {
		n++
		// The callback may use the store.
		got, _, err := h.Claim(h.ctx, b.Lane, b.Account, h.now, 1, func(int) time.Time { return h.now }, nil)
		return err == nil && len(got) == 1 && n < 3
	}))
	h.equal(n, 3, "stopped early")
}
