package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay/store/storetest"
)

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for start := time.Now(); !cond(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			t.Fatal("not in time: ", what)
		}
	}
}

// An account whose endpoints refuse to hear has so many events waiting and no more:
// the oldest go, and nobody else's; its mail is taken; what waits is known after a
// restart; and an endpoint that comes to its senses gets what is left, in order.
func TestWaitingEventsAreBounded(t *testing.T) {
	const bound = 256 << 10
	d := newDisk()
	o := options(d.fs)
	o.MaxEvents = bound
	s := runWith(t, o)
	var shed, oldest atomic.Int64
	hear := func() {
		s.Shed(func(account string, n int, at time.Time) {
			if account != "1" || at.IsZero() {
				t.Errorf("%d events of %q from %v are given up", n, account, at)
			}
			shed.Add(int64(n))
			oldest.CompareAndSwap(0, at.Unix())
		})
	}
	hear()
	e, f, other := numbered(0), numbered(1), numbered(2)
	other.Account = "2"
	for _, p := range []webhook.Endpoint{e, f, other} {
		if err := storetest.PutEndpoint(t.Context(), s, p); err != nil {
			t.Fatal(err)
		}
	}
	accept := func(n int, who string) {
		t.Helper()
		for range n {
			m, ds := storetest.NewMessage(time.Now(), "a@example.com", "b@example.com")
			m.Account = account.ID(who)
			for i := range ds {
				ds[i].Account = m.Account
			}
			if err := storetest.Accept(t.Context(), s, m, ds, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	accept(20, "2")
	others, othersOctets := s.Waiting()
	accept(300, "1")
	eventually(t, "the oldest are given up", func() bool {
		_, octets := s.Waiting()
		return octets-othersOctets <= bound && shed.Load() > 0
	})
	eventually(t, "what was given up is told", func() bool {
		rows, _ := s.Waiting()
		return rows-others+int(shed.Load()) == 300*2*2
	})
	mine, its := rowsOf(t, s.Store, "e0"), rowsOf(t, s.Store, "e1")
	if a, b := mine[0].Seq, its[0].Seq; len(rowsOf(t, s.Store, "e2")) != others || max(a, b)-min(a, b) > bound/300 {
		t.Errorf("what is left begins at %d and %d", a, b)
	}
	if err := errors.Join(s.Verify(), s.stop()); err != nil {
		t.Fatal(err)
	}

	// The bound is smaller at the next start: it holds for what was there.
	o.MaxEvents /= 2
	s = runWith(t, o)
	hear()
	s.Depth()
	accept(1, "1") // whoever starts is told of what is given up from now on
	eventually(t, "the lower bound holds", func() bool {
		_, octets := s.Waiting()
		return octets-othersOctets <= o.MaxEvents
	})
	left := len(rowsOf(t, s.Store, "e0"))

	// While one consumer fails, more comes; then it takes what there is.
	var down atomic.Bool
	down.Store(true)
	var mu sync.Mutex
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, idsIn(q)...)
	}))
	defer server.Close()
	e.URL = server.URL
	if err := storetest.PutEndpoint(t.Context(), s, e); err != nil {
		t.Fatal(err)
	}
	sender := webhook.New(webhook.Options{
		FlushInterval: time.Millisecond, FlushBytes: 8 << 10, RetryAfter: time.Millisecond, RetryMax: 5 * time.Millisecond,
		AllowInsecure: true, PollInterval: 10 * time.Millisecond,
	}, s, zap.NewNop(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sender.Run(ctx) }()
	eventually(t, "it is seen to fail", func() bool {
		st := sender.Status()
		return len(st) > 0 && st[0].Failures > 2
	})
	accept(300, "1") // twice as much as may wait
	eventually(t, "the bound holds still", func() bool {
		_, octets := s.Waiting()
		return octets-othersOctets <= o.MaxEvents
	})
	var want []string
	for _, r := range rowsOf(t, s.Store, "e0") {
		want = append(want, idOf(r.Object))
	}
	down.Store(false)
	eventually(t, "it has all", func() bool { return len(rowsOf(t, s.Store, "e0")) == 0 })
	mu.Lock()
	// Of the oldest some that were in hand may come although they were given up, and
	// others go yet. All behind these come, in order.
	same := 0
	for same < min(len(got), len(want)) && got[len(got)-1-same] == want[len(want)-1-same] {
		same++
	}
	if same < left/2 {
		t.Errorf("%d came of %d, the last %d as they were written", len(got), len(want), same)
	}
	mu.Unlock()
	cancel()
	if err := errors.Join(<-ended, s.Verify(), s.stop()); err != nil {
		t.Error(err)
	}
}

// idsIn gives the ids of the events that are posted.
func idsIn(q *http.Request) (ids []string) {
	var all []struct {
		ID string `json:"sg_event_id"`
	}
	if err := decodeBody(q, &all); err != nil {
		return []string{fmt.Sprint(err)}
	}
	for _, e := range all {
		ids = append(ids, e.ID)
	}
	return ids
}

func decodeBody(q *http.Request, into any) error { return json.NewDecoder(q.Body).Decode(into) }

// idOf reads the id of an event from its wire form.
func idOf(object []byte) string {
	var e struct {
		ID string `json:"sg_event_id"`
	}
	if err := json.Unmarshal(object, &e); err != nil {
		return err.Error()
	}
	return e.ID
}

// Rows that are committed while their endpoint is deleted are counted no more once
// they are gone.
func TestRowsOfADeletedEndpointAreNotCounted(t *testing.T) {
	d := newStalling()
	s := run(t, d)
	for i := range 50 {
		e := webhookEndpoint()
		e.ID, e.Account = fmt.Sprint("e", i), "1"
		if err := storetest.PutEndpoint(t.Context(), s, e); err != nil {
			t.Fatal(err)
		}
		resume := d.stall()
		m, ds := storetest.NewMessage(time.Now(), "a@example.com")
		ds[0].Attempts, ds[0].Due = 1, time.Now().Add(time.Hour)
		ended := make(chan error, 2)
		go func() { ended <- storetest.Accept(context.Background(), s.Store, m, ds, []byte("x\r\n")) }()
		s.seen(m.ID)
		go func() { ended <- s.DeleteEndpoint(context.Background(), "1", e.ID) }()
		eventually(t, "its rows are gone", func() bool {
			ids, err := s.Pending(t.Context())
			return err == nil && len(ids) == 0
		})
		resume()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Fatal(err)
		}
		if rows, octets := s.Waiting(); rows != 0 || octets != 0 {
			t.Fatalf("after %d endpoints %d rows are counted, of %d octets", i+1, rows, octets)
		}
	}
	if err := errors.Join(s.Verify(), s.stop()); err != nil {
		t.Fatal(err)
	}
}
