package tally

import (
	"errors"
	"testing"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

func TestTally(t *testing.T) {
	all := New(Bounds{}, zap.NewNop())
	check := func(want string) {
		t.Helper()
		if got := all.String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	all.add(move{"1", "a.example", 2, 5, 0})
	all.add(move{"2", "a.example", 1, 1, 0})
	all.add(move{"1", "b.example", 1, 1, 0})
	check("a.example 3; b.example 1; account 1 6: a.example 2 b.example 1; account 2 1: a.example 1; ")
	if all.waitingFor("a.example") != 3 || all.waitingFor("c.example") != 0 || len(all.destinations) != 2 || all.Behind("a.example") != 1 || all.Behind("") != 2 {
		t.Error("asked for one destination, or all, it says something else")
	}
	// What was there before it was counted leaves.
	all.add(move{"3", "c.example", -1, -1, 0})
	all.add(move{"1", "c.example", 1, 1, 0})
	if at := all.destinations["c.example"]; at == nil || at.entries != 0 || at.loads != 2 {
		t.Errorf("on the way: %+v", at)
	}
	all.add(move{"3", "c.example", 1, 1, 0})
	for _, m := range []move{{"1", "c.example", -1, -1, 0}, {"1", "a.example", -2, -5, 0}, {"2", "a.example", -1, -1, 0}, {"1", "b.example", -1, -1, 0}} {
		all.add(m)
	}
	check("")
}

func TestAdmits(t *testing.T) {
	all := New(Bounds{}, zap.NewNop())
	for _, m := range []move{{"1", "a.example", 3, 90, 0}, {"1", "b.example", 1, 5, 0}, {"2", "c.example", 1, 1, 0}} {
		all.add(m)
	}
	to := func(names ...string) (ds []relay.Delivery) {
		for _, n := range names {
			ds = append(ds, relay.Delivery{Lane: relay.Lane{Destination: n}})
		}
		return ds
	}
	for _, c := range []struct {
		who                      account.ID
		recipients, destinations int // the bounds
		ds                       []relay.Delivery
		n                        int
		want                     string
	}{
		{"1", 0, 0, to("c.example"), 1 << 30, ""},
		{"1", 100, 10, nil, 0, ""}, // is another message thinkable?
		{"1", 95, 10, nil, 0, "recipients"},
		{"1", 96, 10, nil, 0, ""},
		{"1", 100, 0, to("a.example"), 5, ""},
		{"1", 100, 0, to("a.example"), 6, "recipients"},
		{"2", 100, 0, to("a.example"), 99, ""},
		{"3", 100, 0, to("a.example"), 100, ""},
		{"3", 100, 0, to("a.example"), 101, "recipients"},
		{"1", 0, 2, nil, 0, ""}, // it may write to those again
		{"1", 0, 2, to("a.example", "b.example"), 2, ""},
		{"1", 0, 2, to("a.example", "c.example"), 2, "destinations"},
		{"1", 0, 2, to("d.example"), 1, "destinations"},
		{"1", 0, 3, to("a.example", "d.example"), 2, ""},
		{"1", 0, 3, to("c.example", "d.example"), 2, "destinations"},
		{"1", 0, 1, to("a.example"), 1, ""}, // the bound was made less since
		{"2", 0, 3, to("a.example", "b.example"), 2, ""},
		{"3", 0, 1, to("a.example", "b.example"), 2, "destinations"},
	} {
		all.bounds = Bounds{c.recipients, c.destinations}
		wasRecipients, wasDestinations, _ := all.Refused()
		err := all.Admit(c.who, c.ds, c.n)
		got := ""
		switch recipients, destinations, _ := all.Refused(); {
		case recipients > wasRecipients:
			got = "recipients"
		case destinations > wasDestinations:
			got = "destinations"
		}
		if got != c.want || errors.Is(err, relay.ErrAccountFull) != (c.want != "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

// waitingFor gives how many deliveries wait for a destination.
func (t *Tally) waitingFor(destination string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at := t.destinations[destination]; at != nil {
		return at.entries
	}
	return 0
}
