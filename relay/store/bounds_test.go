package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

// What an account may have waiting holds after a restart, whatever it was that
// wrote the index, and for nobody else. Reports are never refused.
func TestAccountsAreBounded(t *testing.T) {
	o := store.Options{Dir: t.TempDir(), MaxWaiting: 10, MaxDestinations: 3}
	now := time.Now()
	var s *store.Store
	reopen := func() {
		t.Helper()
		var err error
		if s != nil {
			if err = errors.Join(s.Verify(), s.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if s, err = store.Open(o); err != nil {
			t.Fatal(err)
		}
		if err = s.Verify(); err != nil { // which counts, as Run does
			t.Fatal(err)
		}
	}
	accept := func(who account.ID, want error, rcpts ...string) relay.Claimed {
		t.Helper()
		m, ds := storetest.NewMessage(now, rcpts...)
		m.Account = who
		for i := range ds {
			ds[i].Account = m.Account
			ds[i].Attempts, ds[i].Due = 1, now.Add(time.Hour)
		}
		if err := storetest.Accept(t.Context(), s, m, ds, []byte("x")); !errors.Is(err, want) {
			t.Errorf("to %v: %v, want %v", rcpts, err, want)
		}
		return relay.Claimed{Message: m, Delivery: ds[0]}
	}
	commit := func(tr relay.Transition) {
		t.Helper()
		if err := s.Commit(t.Context(), tr); err != nil {
			t.Error(err)
		}
	}
	many := func(n int, domain string) (rcpts []string) {
		for i := range n {
			rcpts = append(rcpts, fmt.Sprintf("u%d@%s", i, domain))
		}
		return rcpts
	}
	reopen()
	first := accept("1", nil, many(6, "a.example")...)
	accept("1", relay.ErrAccountFull, many(5, "a.example")...)
	accept("2", nil, many(10, "a.example")...)
	reopen()
	accept("1", relay.ErrAccountFull, many(5, "a.example")...)
	accept("1", nil, "x@b.example", "x@c.example")
	accept("1", relay.ErrAccountFull, "x@d.example")
	last := accept("1", nil, "x@c.example")
	if err := s.Admit(last.Message.Account); err != nil {
		t.Error(err)
	}
	// An index entry of an older program does not say how many wait.
	if err := s.AgeIndex(); err != nil {
		t.Fatal(err)
	}
	reopen()
	accept("1", nil, "x@c.example")
	if err := s.Admit(last.Message.Account); !errors.Is(err, relay.ErrAccountFull) {
		t.Errorf("with ten waiting: %v", err)
	}
	if err := s.Admit("3"); err != nil {
		t.Error(err)
	}
	// A report makes it eleven, for four destinations.
	blocked := storetest.Blocked(last, now)
	blocked.Report = reportOf(blocked, "postmaster@report.example")
	commit(blocked)
	accept("1", relay.ErrAccountFull, "x@c.example")
	reopen()
	accept("1", relay.ErrAccountFull, "x@c.example")
	commit(storetest.Delivered(first, now))
	accept("1", relay.ErrAccountFull, "x@d.example")
	accept("1", nil, many(6, "c.example")...)
	accept("1", relay.ErrAccountFull, "x@c.example")
	if err := errors.Join(s.Verify(), s.Close()); err != nil {
		t.Error(err)
	}
}

func reportOf(t relay.Transition, to string) *relay.Report {
	m, ds := storetest.NewMessage(time.Now(), to)
	m.Account, m.Report = t.Message.Account, true
	for i := range ds {
		ds[i].Account = m.Account
	}
	return &relay.Report{Message: m, Deliveries: ds, Body: []byte("report")}
}

// A list of a hundred thousand destinations is read in parts, each of them quick.
func TestOverviewOfManyDestinations(t *testing.T) {
	if testing.Short() {
		t.SkipNow()
	}
	const destinations = 100_000
	s, err := store.Open(store.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	now := time.Now()
	for i := 0; i < destinations; i += 1000 {
		rcpts := make([]string, 1000)
		for n := range rcpts {
			rcpts[n] = fmt.Sprintf("a@d%06d.example", i+n)
		}
		m, ds := storetest.NewMessage(now, rcpts...)
		if err := storetest.Accept(t.Context(), s, m, ds, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, after := range []string{"", "d050000.example", "d099000.example"} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		begun := time.Now()
		rows, more, err := s.Overview(ctx, now, after, 100)
		t.Logf("after %q: %v", after, time.Since(begun))
		cancel()
		if err != nil || len(rows) != 100 {
			t.Fatalf("%d rows, %v", len(rows), err)
		}
		var last int
		if _, err := fmt.Sscanf(rows[99].Destination, "d%d.example", &last); err != nil || more != destinations-1-last {
			t.Errorf("after %q: %d more behind %s", after, more, rows[99].Destination)
		}
	}
}
