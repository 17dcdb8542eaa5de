package store

import (
	"bytes"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay"
	"tlsrelay/relay/store/layout"
)

func TestCuts(t *testing.T) {
	var all tally
	add := func(destination string, n int) { all.add(move{"1", destination, n, n, 0}) }
	add("great.example", greatLane)
	add("small.example", greatLane-1)
	c := &all.cuts
	for _, s := range []struct{ start, end string }{
		{"q", ""}, // none of ours
		{"!/id", "!0"},
		{"o/endpoint", "o0"},
		{"q/a.example\x00o", "q/great.example\x00"},
		{"q/great.example\x00o", "q/great.example\x01"},
		{"q/great.example.org\x00o", "q0"},
		{"z/a.example\x00o", "z/great.example\x00"},
	} {
		if _, end, err := c.policy([]byte(s.start)); err != nil || string(end) != s.end {
			t.Errorf("from %q to %q, not %q; %v", s.start, end, s.end, err)
		}
	}
	for _, s := range []struct {
		by    int
		great bool
	}{{-greatLane / 4, true}, {-greatLane / 4, false}, {greatLane / 4, false}, {greatLane / 4, true}, {-greatLane, false}} {
		add("great.example", s.by)
		if _, end, _ := c.policy([]byte("q/a")); (string(end) != "q0") != s.great {
			t.Errorf("with %d entries: up to %q", all.waiting("great.example"), end)
		}
	}
	if all.count() != 1 {
		t.Errorf("%v", all.destinations)
	}
}

// What is flushed and compacted keeps to the cuts.
func TestTablesAreCut(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	en := s.engine
	en.tally.add(move{"1", "dead.example", greatLane, greatLane, 0})
	for range 3 {
		for _, name := range []string{"a.example", "dead.example", "z.example"} {
			e := layout.IndexEntry{Lane: relay.Lane{Destination: name, Class: "o"}, Who: "1", Due: time.Now()}
			e.Key.Message = relay.NewMessageID(time.Now())
			for _, key := range [][]byte{layout.MessageKey(e.Key.Message), e.Encode(layout.Ready), e.Encode(layout.Held)} {
				if err := en.db.Set(key, nil, pebble.NoSync); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := en.db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := en.db.Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
		t.Fatal(err)
	}
	levels, err := en.db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for _, level := range levels {
		for _, table := range level {
			tables++
			_, end, _ := en.tally.cuts.policy(table.Smallest.UserKey)
			if bytes.Compare(table.Largest.UserKey, end) >= 0 {
				t.Errorf("a table goes from %q to %q", table.Smallest.UserKey, table.Largest.UserKey)
			}
		}
	}
	if tables < 8 { // messages, the layout's number, and three for each index
		t.Errorf("%d tables", tables)
	}
}
