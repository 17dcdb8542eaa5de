package store

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/storetest"
)

// While the database cannot be read, keys and settings are what they were:
// nobody's key is refused for good, and nobody's rule forgotten.
func TestMemoryOutlivesAFailedReopening(t *testing.T) {
	var broken atomic.Bool
	var left atomic.Int64 // reads of tables that still succeed
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if broken.Load() && op.Kind == errorfs.OpFileReadAt && strings.HasSuffix(op.Path, ".sst") && left.Add(-1) < 0 {
			return syscall.EIO
		}
		return nil
	}))
	s, err := Open(Options{Dir: "d", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	a, err := s.CreateAccount(t.Context(), account.Account{Kind: account.KindParent, Username: "parent"})
	if err != nil {
		t.Fatal(err)
	}
	example, _ := domain.Parse("example.com")
	err = errors.Join(
		s.PutKey(t.Context(), account.Key{ID: "k", Owner: a.ID}),
		s.PutOverride(t.Context(), account.Override{Account: a.ID, Domain: example}),
		storetest.PutEndpoint(t.Context(), s, webhook.Endpoint{ID: "e", Account: string(a.ID)}),
		s.engine.Close(),
	)
	if err != nil {
		t.Fatal(err)
	}
	// It is read from tables: an opening leaves no log that has to be read.
	flushed := engine.New(engine.Options{Dir: "d", FS: fs})
	if err := errors.Join(flushed.Open(engine.Hooks{}), flushed.Close()); err != nil {
		t.Fatal(err)
	}

	broken.Store(true)
	tries := 0
	for opened := false; !opened; tries++ {
		left.Store(int64(tries))
		s.engine = engine.New(engine.Options{Dir: "d", FS: fs})
		if opened = s.engine.Open(engine.Hooks{Recover: s.recoverFrom}) == nil; !opened {
			s.engine.Close()
		}
		_, noAccount := s.Account(t.Context(), a.ID)
		_, noKey := s.Key(t.Context(), "k")
		_, noRule := s.Override(t.Context(), a.ID, example)
		_, known, noEndpoint := s.Endpoint(t.Context(), "e")
		if err := errors.Join(noAccount, noKey, noRule, noEndpoint); err != nil || !known {
			t.Errorf("read %d fails, and so does: %v, endpoint %v", tries, err, known)
		}
	}
	if tries < 5 {
		t.Errorf("it took only %d reads: this shows nothing", tries)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
