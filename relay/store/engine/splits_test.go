package engine

import (
	"bytes"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay"
	"tlsrelay/relay/store/layout"
)

func TestSplits(t *testing.T) {
	var splits Splits
	entries := map[string]int{}
	add := func(destination string, n int) {
		was := entries[destination]
		entries[destination] += n
		splits.Note(destination, was, was+n)
	}
	add("great.example", manyEntries)
	add("small.example", manyEntries-1)
	for _, s := range []struct{ start, end string }{
		{"q", ""}, // none of ours
		{"!/id", "!0"},
		{"o/endpoint", "o0"},
		{"q/a.example\x00o", "q/great.example\x00"},
		{"q/great.example\x00o", "q/great.example\x01"},
		{"q/great.example.org\x00o", "q0"},
		{"z/a.example\x00o", "z/great.example\x00"},
	} {
		if _, end, err := splits.policy([]byte(s.start)); err != nil || string(end) != s.end {
			t.Errorf("from %q to %q, not %q; %v", s.start, end, s.end, err)
		}
	}
	for _, s := range []struct {
		by    int
		great bool
	}{{-manyEntries / 4, true}, {-manyEntries / 4, false}, {manyEntries / 4, false}, {manyEntries / 4, true}, {-manyEntries, false}} {
		add("great.example", s.by)
		if _, end, _ := splits.policy([]byte("q/a")); (string(end) != "q0") != s.great {
			t.Errorf("with %d entries: up to %q", entries["great.example"], end)
		}
	}
}

// What is flushed and compacted keeps to the splits.
func TestTablesAreSplit(t *testing.T) {
	e := New(Options{Dir: t.TempDir()})
	if err := e.Open(Hooks{}); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	db, splits := e.db.db, &e.db.splits
	splits.Note("dead.example", 0, manyEntries)
	for range 3 {
		for _, name := range []string{"a.example", "dead.example", "z.example"} {
			entry := layout.IndexEntry{Lane: relay.Lane{Destination: name, Class: "o"}, Who: "1", Due: time.Now()}
			entry.Key.Message = relay.NewMessageID(time.Now())
			for _, key := range [][]byte{layout.MessageKey(entry.Key.Message), entry.Encode(layout.Ready), entry.Encode(layout.Held)} {
				if err := db.Set(key, nil, pebble.NoSync); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := db.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Compact(t.Context(), []byte{0}, []byte{255}, false); err != nil {
		t.Fatal(err)
	}
	levels, err := db.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	tables := 0
	for _, level := range levels {
		for _, table := range level {
			tables++
			_, end, _ := splits.policy(table.Smallest.UserKey)
			if bytes.Compare(table.Largest.UserKey, end) >= 0 {
				t.Errorf("a table goes from %q to %q", table.Smallest.UserKey, table.Largest.UserKey)
			}
		}
	}
	if tables < 8 { // messages, the layout's number, and three for each index
		t.Errorf("%d tables", tables)
	}
}
