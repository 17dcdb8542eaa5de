package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

func accountID(s string) account.ID { return account.ID(s) }

// endpoint is one that wants everything.
func endpoint(id, account string, at time.Time) webhook.Endpoint {
	return webhook.Endpoint{
		ID: id, Account: account, URL: "https://example.org/hook/" + id, Enabled: true,
		Processed: true, Deferred: true, Delivered: true, Bounce: true, Created: at, Updated: at,
	}
}

// PutEndpoint stores an endpoint, and its account first where there is none: the
// parent, or the next subuser.
func PutEndpoint(ctx context.Context, s interface {
	account.Store
	webhook.Store
}, e webhook.Endpoint) error {
	a := account.Account{Kind: account.KindParent, Username: "parent"}
	if e.Account != string(account.Parent) {
		a = account.Account{Kind: account.KindSubuser, Username: "sub" + e.Account}
	}
	if _, err := s.Account(ctx, account.ID(e.Account)); errors.Is(err, account.ErrNotFound) {
		if made, err := s.CreateAccount(ctx, a); err != nil || string(made.ID) != e.Account {
			return fmt.Errorf("account %s, wanted %s: %w", made.ID, e.Account, err)
		}
	}
	_, err := s.ChangeEndpoint(ctx, e.Account, func([]webhook.Endpoint) (webhook.Endpoint, error) { return e, nil })
	return err
}

// rows gives the ids of the events waiting for an endpoint.
func (h *harness) rows(id string) (seqs []uint64, kinds []string) {
	h.Helper()
	rows, err := h.Rows(h.ctx, id, webhook.From(0), 1<<20)
	h.ok(err)
	for _, r := range rows {
		var e struct{ Event string }
		h.ok(json.Unmarshal(r.Object, &e))
		seqs, kinds = append(seqs, r.Seq), append(kinds, e.Event)
	}
	return seqs, kinds
}

func testOutbox(h *harness) {
	all, some, off := endpoint("all", "1", h.now), endpoint("some", "1", h.now), endpoint("off", "1", h.now)
	some.Processed, some.Delivered, off.Enabled = false, false, false
	other := endpoint("other", "2", h.now)
	for _, e := range []webhook.Endpoint{all, some, off, other} {
		h.ok(PutEndpoint(h.ctx, h, e))
	}
	woken := make(chan string, 100)
	h.Wake(func(id string) { woken <- id })
	h.queued("a@example.com")
	h.equal(<-woken, "all", "woken")
	c := h.claimOne(lane("example.com"), h.now)
	h.ok(h.Commit(h.ctx, Deferred(c, h.now)))
	c = h.claimOne(lane("example.com"), h.now.Add(time.Hour))
	h.ok(h.Commit(h.ctx, Delivered(c, h.now)))
	h.reopen()

	_, kinds := h.rows("all")
	h.equal(kinds, []string{"processed", "deferred", "delivered"}, "events of all")
	_, kinds = h.rows("some")
	h.equal(kinds, []string{"deferred"}, "events of some")
	pending, err := h.Pending(h.ctx)
	h.ok(err)
	h.equal(pending, []string{"all", "some"}, "pending")
	one, err := h.Rows(h.ctx, "all", webhook.From(0), 1)
	h.ok(err)
	h.equal(len(one), 1, "rows within one octet")
	if !one[0].At.Equal(h.now) {
		h.Fatalf("row of %v, want %v", one[0].At, h.now)
	}
	two, err := h.Rows(h.ctx, "all", webhook.From(0), len(one[0].Object)*2)
	h.ok(err)
	h.equal(len(two) < 3, true, "bounded by octets")

	h.ok(h.Remove(h.ctx, "all", webhook.Span{Last: one[0].Seq}))
	_, kinds = h.rows("all")
	h.equal(kinds, []string{"deferred", "delivered"}, "after one was sent")
	h.reopen()
	seqs, kinds := h.rows("all")
	h.equal(kinds, []string{"deferred", "delivered"}, "after one was sent")
	h.ok(h.Remove(h.ctx, "all", webhook.Span{Last: seqs[1]}))
	h.reopen()
	h.queued("b@example.com")
	later, kinds := h.rows("all")
	h.equal(kinds, []string{"processed"}, "new events")
	h.ok(h.Remove(h.ctx, "all", webhook.Span{Last: later[0]}))
	pending, err = h.Pending(h.ctx)
	h.ok(err)
	h.equal(pending, []string{"some"}, "pending")
}

// sayMuch has every event of a message tell much.
func sayMuch(m *relay.Message) {
	m.Category = json.RawMessage(`["<a>", "b"]`)
	m.UniqueArgs = map[string]string{"": "first", "order": "7", "sg": "é\n", "zz": strings.Repeat("<last>", 1000)}
}

// What all events of a message tell reaches every endpoint with each of them, to the
// octet, as long as they wait; it counts where batches are bounded.
func testOutboxCommon(h *harness) {
	for _, id := range []string{"e", "f"} {
		h.ok(PutEndpoint(h.ctx, h, endpoint(id, "1", h.now)))
	}
	m, ds := h.message("a@example.com", "b@example.com", "c@example.net")
	sayMuch(&m)
	h.accept(m, ds, "body")
	var want []string
	note := func(evs []events.Event) {
		for _, e := range evs {
			want = append(want, string(e.AppendJSON(nil)))
		}
	}
	for _, d := range ds {
		note(m.Processed(d.Recipients))
	}
	c := h.claimOne(lane("example.com"), h.now)
	t := Deferred(c, h.now)
	h.ok(h.Commit(h.ctx, t))
	note(t.Events)
	small, _ := h.queued("d@example.org") // between them, one that says little
	note(small.Processed([]relay.Recipient{{Address: address("d@example.org")}}))
	t = Delivered(h.claimOne(lane("example.com"), h.now.Add(time.Hour)), h.now)
	h.ok(h.Commit(h.ctx, t))
	note(t.Events)
	for range 2 {
		for _, id := range []string{"e", "f"} {
			rows, err := h.Rows(h.ctx, id, webhook.From(0), 1<<20)
			h.ok(err)
			var got []string
			for _, r := range rows {
				got = append(got, string(r.Object))
			}
			h.equal(got, want, "events of "+id)
			size := len(want[0])
			rows, err = h.Rows(h.ctx, id, webhook.From(0), 2*size+size/2)
			h.ok(err)
			h.equal(len(rows), 2, "events within so many octets")
		}
		h.reopen()
	}
}

// A row that waits by itself stays while those before and behind it go, and
// is found again after a restart.
func testOutboxGaps(h *harness) {
	h.ok(PutEndpoint(h.ctx, h, endpoint("e", "1", h.now)))
	for i := range 6 {
		h.queued(fmt.Sprintf("a%d@example.com", i))
	}
	all, _ := h.rows("e")
	h.equal(len(all), 6, "rows")
	within := func(s webhook.Span) (seqs []uint64) {
		rows, err := h.Rows(h.ctx, "e", s, 1<<20)
		h.ok(err)
		for _, r := range rows {
			seqs = append(seqs, r.Seq)
		}
		return seqs
	}
	h.equal(within(webhook.Span{First: all[1], Last: all[3]}), all[1:4], "a span")
	h.equal(within(webhook.Span{First: all[2], Last: all[2]}), all[2:3], "one row")
	h.equal(within(webhook.From(all[4])), all[4:], "what follows")
	h.equal(within(webhook.From(all[5]+1)), []uint64(nil), "what is still to come")
	h.equal(within(webhook.Span{First: all[3], Last: all[1]}), []uint64(nil), "an empty span")

	h.ok(h.Remove(h.ctx, "e", webhook.Span{First: all[3], Last: all[3]})) // in the middle first
	h.ok(h.Remove(h.ctx, "e", webhook.Span{Last: all[1]}))
	h.ok(h.Remove(h.ctx, "e", webhook.Span{First: all[4], Last: all[5]}))
	left := []uint64{all[2]}
	seqs, _ := h.rows("e")
	h.equal(seqs, left, "the row that was left")
	h.ok(h.Remove(h.ctx, "e", webhook.Span{First: all[3], Last: all[5]})) // nothing is there any more
	h.reopen()
	seqs, _ = h.rows("e")
	h.equal(seqs, left, "the row that was left, after a restart")
	pending, err := h.Pending(h.ctx)
	h.ok(err)
	h.equal(pending, []string{"e"}, "pending")

	h.queued("b@example.com")
	h.equal(len(within(webhook.From(all[2]+1))), 1, "a row behind the one that was left")
	h.ok(h.Remove(h.ctx, "e", webhook.Span{First: all[2], Last: all[2]}))
	seqs, _ = h.rows("e")
	h.equal(len(seqs), 1, "without the one that was left")
	h.ok(h.Remove(h.ctx, "e", webhook.From(0)))
	h.queued("c@example.com") // came after the removal of all, so it stays
	seqs, _ = h.rows("e")
	h.equal(len(seqs), 1, "what came later")
}

// A consumer refuses some of the events: the others reach it, and those wait,
// also past a restart, until it takes them.
func testOutboxRefused(h *harness) {
	c := &consumer{refuses: func(email string) bool { return email == "bad@example.com" }, got: map[string]int{}, changed: make(chan struct{}, 1)}
	server := httptest.NewServer(c)
	defer server.Close()
	e := endpoint("e", "1", h.now)
	e.URL = server.URL
	h.ok(PutEndpoint(h.ctx, h, e))
	good := 0
	for i := range 30 {
		if i%10 == 5 {
			h.queued("bad@example.com")
		} else {
			h.queued(fmt.Sprintf("a%d@example.com", i))
			good++
		}
	}
	stop := h.sending()
	c.wait(h, good)
	stop()
	left, _ := h.rows("e")
	h.equal(len(left), 3, "rows that were refused")
	h.reopen()
	left, _ = h.rows("e")
	h.equal(len(left), 3, "rows that were refused, after a restart")
	stop = h.sending()
	h.queued("b@example.com")
	c.wait(h, good+1)
	c.refuse(func(string) bool { return false })
	c.wait(h, good+4)
	stop()
	left, _ = h.rows("e")
	h.equal(len(left), 0, "rows left")
}

// sending posts events until stop is called.
func (h *harness) sending() (stop func()) {
	s := webhook.New(webhook.Options{
		FlushInterval: time.Millisecond, RetryAfter: time.Millisecond, RetryMax: 20 * time.Millisecond,
		PollInterval: 10 * time.Millisecond, AllowInsecure: true,
	}, h.Store, zap.NewNop(), nil)
	ctx, cancel := context.WithCancel(h.ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return func() {
		h.Helper()
		cancel()
		h.ok(<-done)
	}
}

// consumer is a webhook endpoint that refuses batches with certain addresses.
type consumer struct {
	mu      sync.Mutex
	refuses func(email string) bool
	got     map[string]int // how often each event was taken, by id
	changed chan struct{}
}

func (c *consumer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var all []struct {
		Email string
		ID    string `json:"sg_event_id"`
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if json.NewDecoder(r.Body).Decode(&all) != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	for _, e := range all {
		if c.refuses(e.Email) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
	}
	for _, e := range all {
		c.got[e.ID]++
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *consumer) refuse(f func(email string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuses = f
}

// wait waits until n events were taken.
func (c *consumer) wait(h *harness, n int) {
	h.Helper()
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		got := len(c.got)
		c.mu.Unlock()
		if got >= n {
			h.equal(got, n, "events taken")
			return
		}
		select {
		case <-c.changed:
		case <-deadline:
			h.Fatalf("%d events taken of %d", got, n)
		}
	}
}

// While rows come in from many sides, a drain loop that takes what it is
// given and removes it misses none and sees none twice.
func testOutboxOrder(h *harness) {
	h.ok(PutEndpoint(h.ctx, h, endpoint("e", "1", h.now)))
	const writers, each = 8, 40
	woken := make(chan struct{}, 1)
	h.Wake(func(string) {
		select {
		case woken <- struct{}{}:
		default:
		}
	})
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range each {
				m, ds := h.message(fmt.Sprintf("a@d%d.example", i))
				ds[0].Attempts = 1
				err := Accept(h.ctx, h.Store, m, ds, []byte("x"))
				if err == nil {
					err = h.Commit(h.ctx, Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, h.now))
				}
				if err != nil {
					h.Error(err)
					return
				}
			}
		})
	}
	seen := make(map[string]bool)
	var last uint64
	drain := func() {
		for {
			rows, err := h.Rows(h.ctx, "e", webhook.From(0), 4000)
			h.ok(err)
			if len(rows) == 0 {
				return
			}
			for _, r := range rows {
				var e struct {
					ID string `json:"sg_event_id"`
				}
				h.ok(json.Unmarshal(r.Object, &e))
				if seen[e.ID] || r.Seq <= last {
					h.Fatalf("row %d (%s) after %d: seen before, or out of order", r.Seq, e.ID, last)
				}
				seen[e.ID], last = true, r.Seq
			}
			h.ok(h.Remove(h.ctx, "e", webhook.Span{Last: last}))
		}
	}
	go func() { wg.Wait(); close(woken) }()
	for range woken { // and at no other time: every row that can be had was told of
		drain()
	}
	h.equal(len(seen), writers*each*2, "events")
}

func testOutboxDeleted(h *harness) {
	h.ok(PutEndpoint(h.ctx, h, endpoint("e", "1", h.now)))
	h.queued("a@example.com")
	h.ok(h.DeleteEndpoint(h.ctx, "1", "e"))
	_, ok, err := h.Endpoint(h.ctx, "e")
	h.ok(err)
	h.equal(ok, false, "deleted")
	pending, err := h.Pending(h.ctx)
	h.ok(err)
	h.equal(len(pending), 0, "pending")
	h.queued("b@example.com")
	h.reopen()
	seqs, _ := h.rows("e")
	h.equal(len(seqs), 0, "rows")
	// Reports tell no webhook.
	h.ok(PutEndpoint(h.ctx, h, endpoint("e", "1", h.now)))
	m, ds := h.message("c@example.com")
	m.Report = true
	h.ok(h.Accept(h.ctx, m, ds, h.NewDraft(m.Account), m.Processed(ds[0].Recipients)))
	seqs, _ = h.rows("e")
	h.equal(len(seqs), 0, "events of a report")
	h.equal(m.Processed(ds[0].Recipients)[0].Kind, events.Processed, "a report has events all the same")
}
