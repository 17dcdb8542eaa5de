package store_test

import (
	"testing"

	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) storetest.Opener {
		dir := t.TempDir()
		return func(t testing.TB) storetest.Store {
			s, err := store.Open(store.Options{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
	})
}
