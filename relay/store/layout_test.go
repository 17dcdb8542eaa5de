package store

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/relay"
)

// A directory of another layout is left alone, with an error that says so.
func TestForeignLayoutIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	name := s.db
	for _, change := range []func(*pebble.DB) error{
		func(db *pebble.DB) error { return db.Set([]byte(counterLayout), []byte("4"), pebble.Sync) },
		func(db *pebble.DB) error { // as before there was a stamp
			return errors.Join(db.Delete([]byte(counterLayout), pebble.Sync), db.Set([]byte("m/x"), nil, pebble.Sync))
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
		if !errors.Is(err, errLayout) {
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
	row := append(appendTime(nil, at), `{"email":"a@b.example"}`...)
	if err := errors.Join(
		s.engine.db.Set(outboxKey("e", 1), row, nil),
		s.engine.db.Set([]byte(counterLayout), []byte("2"), pebble.Sync),
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
	stamp, _, err := s.engine.get([]byte(counterLayout))
	if err := errors.Join(err, s.Close()); err != nil || string(stamp) != "3" {
		t.Errorf("layout %q, %v", stamp, err)
	}
}

// An event whose message cannot be read is told all the same.
func TestRowWithoutItsMessage(t *testing.T) {
	s, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	m := relay.Message{ID: relay.NewMessageID(time.Now()), UniqueArgs: map[string]string{"much": strings.Repeat("x", 1000)}}
	e := m.Processed([]relay.Recipient{{}})[0]
	form := rowFormOf(&m, []events.Event{e})
	s.tickets.resume(2)
	if err := s.engine.db.Set(outboxKey("e", 1), form.append(nil, &e), pebble.Sync); err != nil {
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

// What layout 1 had queued and finished is there afterwards, also when the
// upgrade was cut off half-way.
func TestUpgradeFromLayout1(t *testing.T) {
	now := time.Now().UTC().Round(0)
	waiting, ended := relay.NewMessageID(now), relay.NewMessageID(now.Add(-time.Hour))
	lane := relay.Lane{Destination: "example.com", Class: "o"}
	text := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ds := []relay.Delivery{
		{Key: relay.DeliveryKey{Message: waiting}, Account: "7", Lane: lane, Attempts: 2, Due: now},
		{Key: relay.DeliveryKey{Message: waiting, Number: 1}, Account: "7", Lane: lane, Attempts: 1},
		{Key: relay.DeliveryKey{Message: ended}, Account: "7", Lane: lane, Attempts: 1},
	}
	old := map[string][]byte{
		"m/" + string(waiting[:]):              text(relay.Message{ID: waiting, Account: "7", Deliveries: 2}),
		"b/" + string(waiting[:]):              []byte("body"),
		"d/" + string(waiting[:]) + "\x00\x00": append(state{attempts: 3, due: now.Add(time.Minute)}.encode(nil), text(ds[0])...),
		"!/" + string(waiting[:]) + "\x00\x01": append([]byte("\x01\x017"), text(ds[1])...),
		"!/" + string(ended[:]):                text(relay.Message{ID: ended, Account: "7", Deliveries: 1}),
		"!/" + string(ended[:]) + "\x00\x00":   append([]byte("\x01\x017"), text(ds[2])...),
		string(indexEntry{lane: lane, who: "7", due: now.Add(time.Minute), key: ds[0].Key}.encode(pReady)): nil,
	}
	for _, stamp := range []string{"1", upgrading} {
		dir := t.TempDir()
		s, err := Open(Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		for key, v := range old {
			if err := s.engine.db.Set([]byte(key), v, nil); err != nil {
				t.Fatal(err)
			}
		}
		if stamp == upgrading { // all of it is brought over, but for the word that it was
			if err := s.fromLayout1(s.engine); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(s.engine.stamp(stamp), s.Close()); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Verify(); err != nil {
			t.Fatal(err)
		}
		for prefix := range map[string]bool{"m/": true, "d/": true, "b/": true} {
			if err := s.engine.eachPrefix([]byte(prefix), func(key, _ []byte) (bool, error) {
				t.Errorf("%q was left", key)
				return true, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		_, both, err := s.Message(t.Context(), waiting)
		if err != nil || len(both) != 2 || both[0].Attempts != 3 || both[1].Account != "7" {
			t.Fatalf("%+v, %v", both, err)
		}
		if _, one, err := s.Message(t.Context(), ended); err != nil || len(one) != 1 {
			t.Fatalf("%+v, %v", one, err)
		}
		got, _, err := s.Claim(t.Context(), lane, "7", now.Add(time.Hour), 10, func(int) time.Time { return now.Add(2 * time.Hour) }, nil)
		if err != nil || len(got) != 1 || got[0].Delivery.Attempts != 4 {
			t.Fatalf("claimed %+v, %v", got, err)
		}
		finished := 0
		if err := s.Finished(t.Context(), "7", now.Add(-2*time.Hour), func(relay.Delivery) bool { finished++; return true }); err != nil || finished != 2 {
			t.Fatalf("%d finished, %v", finished, err)
		}
	}
}

// A record that cannot be read keeps the others neither from being brought
// over nor from being delivered.
func TestUpgradeOfUnreadableRecord(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC().Round(0)
	id := relay.NewMessageID(now)
	d := relay.Delivery{
		Key: relay.DeliveryKey{Message: id, Number: 1}, Account: "7",
		Lane: relay.Lane{Destination: "example.com", Class: "o"}, Due: now, Attempts: 1,
	}
	m := relay.Message{ID: id, Account: "7", Deliveries: 2}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for key, v := range map[string][]byte{
		"b/" + string(id[:]):              []byte("body"),
		"d/" + string(id[:]) + "\x00\x00": []byte("?"),
		"d/" + string(id[:]) + "\x00\x01": append(stateOf(d).encode(nil), text...),
		string(entryOf(d).encode(pReady)): nil,
	} {
		if err := s.engine.db.Set([]byte(key), v, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.engine.stamp("1"), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = Open(Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Commit(t.Context(), relay.Transition{Message: m, Before: d, After: d, Done: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Body(t.Context(), id); err != nil {
		t.Errorf("the body went though somebody has to look at the other delivery: %v", err)
	}
}
