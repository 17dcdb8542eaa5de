package storetest

import (
	"errors"
	"fmt"
	"time"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/relay"
)

// act does one act and gives how many deliveries it changed.
func (h *harness) act(a relay.Act, sel relay.Selection) int {
	h.Helper()
	n, err := h.Act(h.ctx, a, sel, h.now)
	h.ok(err)
	return n
}

func testHold(h *harness) {
	m, _ := h.queued("a@example.com", "b@example.net")
	other, _ := h.queued("a@example.com")
	h.equal(h.act(relay.ActHold, relay.Selection{Message: m.ID}), 2, "held")
	h.equal(h.act(relay.ActHold, relay.Selection{Message: m.ID}), 0, "held again")
	h.reopen()
	h.equal(h.claimOne(lane("example.com"), h.now).Message.ID, other.ID, "not held")
	h.equal(len(h.claim(lane("example.net"), h.now, 10)), 0, "held")
	h.equal(len(h.backlog()), 1, "backlogs")
	h.equal(h.act(relay.ActRelease, relay.Selection{Destination: "example.com"}), 1, "released")
	h.equal(h.claimOne(lane("example.com"), h.now).Message.ID, m.ID, "released")
	h.equal(h.act(relay.ActRelease, relay.Selection{}), 1, "released")
	h.equal(len(h.claim(lane("example.net"), h.now, 10)), 1, "released")
	if _, err := h.Act(h.ctx, relay.ActDrop, relay.Selection{}, h.now); err == nil {
		h.Fatal("a drop needs a transition")
	}
	for range 1200 {
		h.queued("a@many.example")
	}
	h.equal(h.act(relay.ActHold, relay.Selection{Destination: "many.example"}), 1200, "held")
	h.equal(h.act(relay.ActRelease, relay.Selection{Account: "2"}), 0, "released")
	h.equal(h.act(relay.ActRelease, relay.Selection{Account: "1"}), 1200, "released")
}

func testHoldInFlight(h *harness) {
	h.queued("a@example.com")
	c := h.claimOne(lane("example.com"), h.now)
	h.equal(h.act(relay.ActHold, relay.Selection{}), 1, "held")
	h.ok(h.Commit(h.ctx, Deferred(c, h.now)))
	h.equal(len(h.claim(lane("example.com"), h.now.Add(24*time.Hour), 10)), 0, "held on")
	list, err := h.Queue(h.ctx, relay.Selection{Held: true}, 0, 0)
	h.ok(err)
	h.equal(len(list), 1, "held")
	h.equal(list[0].Delivery.Last.Reason, events.ReplyTemp, "what was tried has happened")

	h.queued("a@example.net")
	c = h.claimOne(lane("example.net"), h.now)
	h.equal(h.act(relay.ActHold, relay.Selection{Destination: "example.net"}), 1, "held")
	h.ok(h.Commit(h.ctx, Delivered(c, h.now)))
	h.equal(h.act(relay.ActRelease, relay.Selection{Destination: "example.net"}), 0, "it has been delivered")
}

func testRetry(h *harness) {
	h.queued("a@example.com")
	h.queued("b@example.com")
	got := h.claim(lane("example.com"), h.now, 2)
	t := Deferred(got[0], h.now)
	h.ok(h.Commit(h.ctx, t))
	// The other one is being tried, under a lease that was renewed: a retry
	// would deliver it twice.
	renewed := got[1].Delivery
	renewed.Due = renewed.Due.Add(time.Minute)
	h.ok(h.Commit(h.ctx, relay.Transition{Message: got[1].Message, Before: got[1].Delivery, After: renewed}))
	h.equal(h.act(relay.ActRetry, relay.Selection{Destination: "example.com"}), 1, "retried")
	c := h.claimOne(lane("example.com"), h.now)
	h.equal(c.Delivery.Key, got[0].Delivery.Key, "retried")
	// Nobody is at work on anything after a restart.
	h.reopen()
	h.equal(h.act(relay.ActRetry, relay.Selection{}), 2, "retried")
	h.equal(len(h.claim(lane("example.com"), h.now, 10)), 2, "retried")
}

func testDrop(h *harness) {
	h.ok(PutEndpoint(h.ctx, h, endpoint("e1", "1", h.now)))
	m, ds := h.queued("a@example.com", "b@example.net")
	worker := h.claimOne(lane("example.com"), h.now)
	h.equal(h.act(relay.ActHold, relay.Selection{Destination: "example.net"}), 1, "held")
	for _, d := range ds {
		// The lease of the worker and of the operator may end alike.
		c, err := h.Take(h.ctx, d.Key, worker.Delivery.Due)
		h.ok(err)
		h.equal(len(h.claim(d.Lane, h.now, 10)), 0, "taken")
		h.ok(h.Commit(h.ctx, c.Delivery.Drop(c.Message, h.now, "dropped by the operator", false)))
	}
	if err := h.Commit(h.ctx, Delivered(worker, h.now)); !errors.Is(err, relay.ErrNotFound) {
		h.Fatalf("delivered after the drop: %v", err)
	}
	if _, err := h.Take(h.ctx, ds[0].Key, h.now); !errors.Is(err, relay.ErrNotFound) {
		h.Fatalf("taken after the drop: %v", err)
	}
	_, all, err := h.Message(h.ctx, m.ID)
	h.ok(err)
	h.equal(all[1].Recipients[0].State, relay.Dropped, "state")
	rows, err := h.Rows(h.ctx, "e1", webhook.From(0), 1<<20)
	h.ok(err)
	h.equal(len(rows), 4, "processed and dropped, twice")

	_, ds = h.queued("c@example.com")
	worker = h.claimOne(lane("example.com"), h.now)
	_, err = h.Take(h.ctx, ds[0].Key, worker.Delivery.Due)
	h.ok(err)
	if err := h.Commit(h.ctx, Delivered(worker, h.now)); !errors.Is(err, relay.ErrStale) {
		h.Fatalf("delivered what was taken: %v", err)
	}
}

func testQueueList(h *harness) {
	var ids []string
	for range 5 {
		m, _ := h.queued("a@example.com")
		ids = append(ids, m.ID.String())
		h.now = h.now.Add(time.Second)
	}
	m, _ := h.queued("a@example.net")
	h.act(relay.ActHold, relay.Selection{Message: m.ID})
	for _, c := range []struct {
		name          string
		sel           relay.Selection
		offset, limit int
		want          []string
	}{
		{"all", relay.Selection{}, 0, 0, append(ids[:5:5], m.ID.String())},
		{"a page", relay.Selection{}, 4, 2, []string{ids[4], m.ID.String()}},
		{"a destination", relay.Selection{Destination: "example.com"}, 1, 2, ids[1:3]},
		{"held", relay.Selection{Held: true}, 0, 0, []string{m.ID.String()}},
		{"nobody's", relay.Selection{Account: "9"}, 0, 0, nil},
		{"a message", relay.Selection{Account: "1", Destination: "example.net", Message: m.ID}, 0, 0, []string{m.ID.String()}},
		{"not of that destination", relay.Selection{Destination: "example.com", Message: m.ID}, 0, 0, nil},
	} {
		list, err := h.Queue(h.ctx, c.sel, c.offset, c.limit)
		h.ok(err)
		var got []string
		for _, q := range list {
			h.equal(q.Message.ID, q.Delivery.Key.Message, "message of the delivery")
			got = append(got, q.Message.ID.String())
		}
		h.equal(got, c.want, c.name)
	}
}

func testOverview(h *harness) {
	for _, age := range []time.Duration{time.Minute, 2 * time.Hour, 50 * time.Hour} {
		m, ds := NewMessage(h.now.Add(-age), "a@b.example")
		h.accept(m, ds, "x")
	}
	h.queued("a@a.example")
	h.queued("a@c.example")
	h.act(relay.ActHold, relay.Selection{Destination: "a.example"})
	c := h.claim(lane("b.example"), h.now, 1)[0] // the oldest
	t := Deferred(c, h.now)
	t.After.Due = h.now.Add(-200 * time.Hour) // so it is the first
	h.ok(h.Commit(h.ctx, t))

	rows, more, err := h.Overview(h.ctx, h.now, "", 0)
	h.ok(err)
	h.equal(len(rows), 3, "destinations")
	h.equal(more, 0, "destinations behind all")
	for i, want := range []struct {
		name          string
		waiting, held int
	}{{"a.example", 0, 1}, {"b.example", 3, 0}, {"c.example", 1, 0}} {
		h.equal(rows[i].Destination, want.name, "order")
		h.equal(rows[i].Waiting, want.waiting, want.name)
		h.equal(rows[i].Held, want.held, want.name)
	}
	b := rows[1]
	h.equal(b.Ages, []int{1, 0, 0, 1, 0, 0, 0, 1, 0}, "ages")
	h.equal(h.now.Sub(b.Oldest), 50*time.Hour, "oldest")
	h.equal(h.now.Sub(b.Due), 200*time.Hour, "due")
	h.equal(b.Reason, events.ReplyTemp, "reason")
	h.equal(b.Reply, "451 not now", "reply")
}

// A long list comes in parts, which are the whole and no more.
func testOverviewParts(h *harness) {
	var names []string
	for i := range 25 {
		// Held and waiting ones, and names that begin as others do.
		for _, name := range []string{fmt.Sprintf("d%02d.example", i), fmt.Sprintf("d%02d.example.org", i)} {
			names = append(names, name)
			h.queued("a@" + name)
		}
		if i%3 == 0 {
			h.act(relay.ActHold, relay.Selection{Destination: fmt.Sprintf("d%02d.example", i)})
		}
	}
	h.queued("b@d00.example") // held and waiting
	for _, limit := range []int{1, 7, 50, 51} {
		var got []string
		for last := ""; ; last = got[len(got)-1] {
			rows, more, err := h.Overview(h.ctx, h.now, last, limit)
			h.ok(err)
			for _, r := range rows {
				got = append(got, r.Destination)
			}
			h.equal(more, len(names)-len(got), "destinations behind")
			if more == 0 {
				break
			}
			h.equal(len(rows), limit, "destinations in a part")
		}
		h.equal(got, names, "destinations")
	}
	rows, more, err := h.Overview(h.ctx, h.now, "zzz", 10)
	h.ok(err)
	h.equal(len(rows)+more, 0, "destinations behind the last")

	for _, c := range []struct {
		sel          relay.Selection
		offset, most int
		want         int
	}{
		{relay.Selection{}, 0, 100, 51},
		{relay.Selection{}, 50, 100, 1},
		{relay.Selection{}, 60, 100, 0},
		{relay.Selection{}, 0, 10, 10},
		{relay.Selection{}, 0, 0, 0},
		{relay.Selection{Destination: "d00.example"}, 0, 100, 2},
		{relay.Selection{Destination: "d00.example", Held: true}, 0, 100, 1},
		{relay.Selection{Account: "2"}, 0, 100, 0},
	} {
		n, err := h.Count(h.ctx, c.sel, c.offset, c.most)
		h.ok(err)
		h.equal(n, c.want, fmt.Sprintf("count of %+v", c))
	}
}

func testFinished(h *harness) {
	var ids []string
	for i := range 10 {
		m, ds := h.message("a@example.com")
		if i%2 == 1 {
			m.Account, ds[0].Account = "2", "2"
		}
		ds[0].Attempts = 1
		h.accept(m, ds, "x")
		h.ok(h.Commit(h.ctx, Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, h.now)))
		ids = append(ids, m.ID.String())
		h.now = h.now.Add(time.Hour)
	}
	h.queued("waiting@example.com")
	for _, c := range []struct {
		who   string
		since time.Duration
		stop  int
		want  []string
	}{
		{"", 100 * time.Hour, 0, ids},
		{"1", 100 * time.Hour, 0, []string{ids[0], ids[2], ids[4], ids[6], ids[8]}},
		{"2", 4 * time.Hour, 0, []string{ids[7], ids[9]}},
		{"", 100 * time.Hour, 2, ids[:2]},
		{"3", 100 * time.Hour, 0, nil},
	} {
		var got []string
		h.ok(h.Finished(h.ctx, relay.Message{}.Account+accountID(c.who), h.now.Add(-c.since), func(d relay.Delivery) bool {
			got = append(got, d.Key.Message.String())
			return len(got) != c.stop
		}))
		h.equal(got, c.want, "finished of "+c.who)
	}
}
