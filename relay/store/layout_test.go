package store

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// A directory of another layout is left alone, with an error that says so.
func TestForeignLayoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "db")
	for _, change := range []func(*pebble.DB) error{
		func(db *pebble.DB) error { return db.Set([]byte(layout.CounterLayout), []byte("4"), pebble.Sync) },
		func(db *pebble.DB) error { // as before there was a stamp
			return errors.Join(db.Delete([]byte(layout.CounterLayout), pebble.Sync), db.Set([]byte("m/x"), nil, pebble.Sync))
		},
	} {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		db, err := pebble.Open(name, &pebble.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(change(db), db.Close()); err != nil {
			t.Fatal(err)
		}
		opened, err := Open(Options{Dir: dir})
		if !errors.Is(err, engine.ErrLayout) {
			t.Fatalf("opened %v, %v", opened != nil, err)
		}
	}
}

// Rows of layout 2 are sent as they are, and an older program reads none of layout 3.
func TestRowsOfLayout2(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Round(0)
	row := append(layout.AppendTime(nil, at), `{"email":"a@b.example"}`...)
	if err := errors.Join(
		s.Set(layout.RowKey("e", 1), row),
		s.Set([]byte(layout.CounterLayout), []byte("2")),
		s.Close(),
	); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Rows(t.Context(), "e", webhook.From(0), 1)
	if err != nil || len(rows) != 1 || !rows[0].At.Equal(at) || string(rows[0].Object) != `{"email":"a@b.example"}` {
		t.Errorf("%v, %v", rows, err)
	}
	db, err := s.engine.Enter()
	if err != nil {
		t.Fatal(err)
	}
	stamp, _, err := db.Get([]byte(layout.CounterLayout))
	s.engine.Leave()
	if err := errors.Join(err, s.Close()); err != nil || string(stamp) != "3" {
		t.Errorf("layout %q, %v", stamp, err)
	}
}

// An event whose message cannot be read is told all the same.
func TestRowWithoutItsMessage(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	m := relay.Message{ID: relay.NewMessageID(time.Now()), UniqueArgs: map[string]string{"much": strings.Repeat("x", 1000)}}
	e := m.Processed([]relay.Recipient{{}})[0]
	form := layout.RowFormOf(&m, []events.Event{e})
	if err := errors.Join(s.Set(layout.RowKey("e", 1), form.Append(nil, &e)), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Rows(t.Context(), "e", webhook.From(0), 1)
	if err != nil || len(rows) != 1 || !strings.Contains(string(rows[0].Object), e.ID) || !json.Valid(rows[0].Object) {
		t.Errorf("%v, %v", rows, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
