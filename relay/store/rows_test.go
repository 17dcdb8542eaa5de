package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

// much is a message that says much of itself, to so many recipients.
func much(at time.Time, rcpts int) (relay.Message, []relay.Delivery) {
	var to []string
	for i := range rcpts {
		to = append(to, fmt.Sprintf("u%d@example.com", i))
	}
	m, ds := storetest.NewMessage(at, to...)
	m.UniqueArgs = map[string]string{"much": strings.Repeat("x", 10_000)}
	for i := range ds {
		ds[i].Attempts, ds[i].Due = 1, at.Add(time.Hour)
	}
	return m, ds
}

func rowsOf(t *testing.T, s *store.Store, endpoint string) []webhook.Row {
	t.Helper()
	rows, err := s.Rows(t.Context(), endpoint, webhook.From(0), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func numbered(n int) webhook.Endpoint {
	e := webhookEndpoint()
	e.ID = fmt.Sprint("e", n)
	e.URL = "https://example.org/" + e.ID
	return e
}

// What a message says of itself is stored once, however many recipients and endpoints
// it has.
func TestCommonPartIsStoredOnce(t *testing.T) {
	const recipients, endpoints = 500, 5
	s := run(t, newDisk().fs)
	for n := range endpoints {
		if err := storetest.PutEndpoint(t.Context(), s, numbered(n)); err != nil {
			t.Fatal(err)
		}
	}
	m, ds := much(time.Now(), recipients)
	if err := storetest.Accept(t.Context(), s, m, ds, nil); err != nil {
		t.Fatal(err)
	}
	rows, octets := s.Waiting()
	told := 0
	for _, r := range rowsOf(t, s.Store, "e1") {
		told += len(r.Object)
	}
	t.Logf("%d rows take %d octets, and tell %d to each of %d endpoints", rows, octets, told, endpoints)
	if rows != recipients*endpoints || told < recipients*10_000 || octets > recipients*endpoints*500 {
		t.Errorf("%d rows take %d octets, and tell %d", rows, octets, told)
	}
	if err := errors.Join(s.Verify(), s.stop()); err != nil {
		t.Error(err)
	}
}

// The record of a message outlives the retention while an event needs it, and no
// longer: not when the event is sent, nor when its account is gone.
func TestRowsKeepTheirMessage(t *testing.T) {
	for name, end := range map[string]func(s *store.Store, a account.ID) error{
		"sent": func(s *store.Store, _ account.ID) error {
			return s.Remove(context.Background(), "e", webhook.From(0))
		},
		"the endpoint is deleted": func(s *store.Store, a account.ID) error {
			return s.DeleteEndpoint(context.Background(), string(a), "e")
		},
		"the account is deleted": func(s *store.Store, a account.ID) error {
			return s.DeleteAccount(context.Background(), a)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, store.Options{Dir: t.TempDir(), Retention: time.Hour})
			a, err := s.CreateAccount(t.Context(), account.Account{Kind: account.KindSubuser, Username: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			e := webhookEndpoint()
			e.Account = string(a.ID)
			if err := storetest.PutEndpoint(t.Context(), s, e); err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			m, ds := much(now.Add(-2*time.Hour), 3)
			m.Account = a.ID
			for i := range ds {
				ds[i].Account = a.ID
			}
			err = storetest.Accept(t.Context(), s, m, ds, nil)
			if err == nil {
				err = s.Commit(t.Context(), storetest.Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, now))
			}
			if err == nil {
				err = s.Sweep(t.Context(), now)
			}
			if err != nil {
				t.Fatal(err)
			}
			rows := rowsOf(t, s, "e")
			if len(rows) != 6 || !strings.Contains(string(rows[5].Object), strings.Repeat("x", 10_000)) {
				t.Fatalf("%d rows", len(rows))
			}
			if err := errors.Join(end(s, a.ID), s.Sweep(t.Context(), now)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Message(t.Context(), m.ID); !errors.Is(err, relay.ErrNotFound) {
				t.Errorf("the message: %v", err)
			}
			if err := s.Verify(); err != nil { // which counts, as Run does
				t.Error(err)
			}
			if rows, octets := s.Waiting(); rows != 0 || octets != 0 {
				t.Errorf("%d rows of %d octets are counted", rows, octets)
			}
		})
	}
}
