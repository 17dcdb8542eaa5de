package handshake

import (
	"crypto/tls"
	"testing"

	"tlsrelay/policy"
)

// TestTicketSize: a ticket counts with all that is kept with it.
func TestTicketSize(t *testing.T) {
	for size, kept := range map[int]bool{100: true, 60_000: false} {
		cache := Tickets{ClientSessionCache: tls.NewLRUClientSessionCache(2), h: NewProfiles(), prefix: "x"}
		s, err := tls.NewResumptionState(make([]byte, size), &tls.SessionState{})
		if err != nil {
			t.Fatal(err)
		}
		cache.Put("k", s)
		if _, ok := cache.Get("k"); ok != kept {
			t.Errorf("a ticket of %d octets is kept: %v", size, ok)
		}
	}
}

// TestTicketCache: no two connections offer the same ticket, and one comes back
// only where the host takes it for more than one session.
func TestTicketCache(t *testing.T) {
	cache := func(p *Profiles, lru tls.ClientSessionCache) *Tickets {
		return &Tickets{ClientSessionCache: lru, h: p, prefix: "x"}
	}
	s, err := tls.NewResumptionState([]byte("ticket"), &tls.SessionState{})
	if err != nil {
		t.Fatal(err)
	}
	p, lru := NewProfiles(), tls.NewLRUClientSessionCache(2)
	cache(p, lru).Put("k", s)
	first := cache(p, lru)
	if _, ok := first.Get("k"); !ok {
		t.Fatal("no ticket")
	}
	if _, ok := cache(p, lru).Get("k"); ok {
		t.Error("the same ticket for two connections")
	}
	for _, c := range []struct {
		session policy.Session
		back    bool
	}{
		{policy.Session{Version: policy.TLS13, Resumed: true}, false},
		{policy.Session{Version: policy.TLS12}, false}, // declined
		{policy.Session{Version: policy.TLS12, Resumed: true}, true},
	} {
		first.Worked(&c.session)
		if _, ok := cache(p, lru).Get("k"); ok != c.back {
			t.Errorf("%+v: back again: %v", c.session, ok)
		}
	}
	first.renewed = true
	first.Worked(&policy.Session{Version: policy.TLS12, Resumed: true})
	if _, ok := cache(p, lru).Get("k"); ok {
		t.Error("the old ticket is kept beside the new one")
	}
}
