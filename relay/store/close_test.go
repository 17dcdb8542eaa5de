package store

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Closing takes the metrics away, although collecting them enters the store.
func TestCloseUnregisters(t *testing.T) {
	reg := prometheus.NewRegistry()
	for range 2 { // a second store may take the first one's place
		s, err := Open(Options{Dir: t.TempDir(), Registerer: reg})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := reg.Gather(); err != nil || len(got) == 0 {
			t.Fatalf("%d metrics, %v", len(got), err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
