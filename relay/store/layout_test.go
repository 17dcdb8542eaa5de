package store

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2"
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
		func(db *pebble.DB) error { return db.Set([]byte(counterLayout), []byte("2"), pebble.Sync) },
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
