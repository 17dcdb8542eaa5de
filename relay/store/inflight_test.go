package store_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tlsrelay/relay"
	"tlsrelay/relay/store/storetest"
)

// A commit whose sync failed may be in the log all the same. Trying it again
// finds that out, and whoever had the delivery no longer has it: an operator
// can have it tried.
func TestRetryAfterACommitInDoubt(t *testing.T) {
	var failing atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return errBroken
		}
		return nil
	}))
	s := run(t, fs)
	now := time.Now()
	m, ds := storetest.NewMessage(now, "a@slow.example")
	ds[0].Attempts, ds[0].Due = 1, now.Add(time.Hour)
	if err := storetest.Accept(t.Context(), s.Store, m, ds, []byte("x\r\n")); err != nil {
		t.Fatal(err)
	}
	after := ds[0]
	after.Due, after.Last = now.Add(2*time.Hour), &relay.Attempt{At: now}
	step := relay.Transition{Message: m, Before: ds[0], After: after, Sync: true}

	failing.Store(true)
	if err := s.Commit(t.Context(), step); err == nil {
		t.Fatal("a commit without its sync went well")
	}
	failing.Store(false)
	s.ready()
	if err := s.Commit(t.Context(), step); err != nil && !errors.Is(err, relay.ErrStale) {
		t.Fatal(err)
	}
	if n, err := s.Act(t.Context(), relay.ActRetry, relay.Selection{}, now); n != 1 || err != nil {
		t.Errorf("%d deliveries are retried, %v", n, err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// A commit in doubt that did happen is told as such, once: its outcome is not
// somebody else's.
func TestCommitInDoubtHappened(t *testing.T) {
	var failing atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if failing.Load() && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
			return errBroken
		}
		return nil
	}))
	s := run(t, fs)
	now := time.Now()
	m, ds := storetest.NewMessage(now, "a@slow.example")
	ds[0].Attempts, ds[0].Due = 1, now.Add(time.Hour)
	if err := storetest.Accept(t.Context(), s.Store, m, ds, []byte("x\r\n")); err != nil {
		t.Fatal(err)
	}
	deferred := ds[0]
	deferred.Due, deferred.Last = now.Add(2*time.Hour), &relay.Attempt{At: now}
	done := deferred
	done.Recipients = slices.Clone(done.Recipients)
	done.Recipients[0].State, done.Last = relay.Delivered, &relay.Attempt{At: now.Add(time.Second)}
	for _, step := range []relay.Transition{
		{Message: m, Before: ds[0], After: deferred, Sync: true},
		{Message: m, Before: deferred, After: done, Done: true, Sync: true},
	} {
		failing.Store(true)
		if err := s.Commit(t.Context(), step); err == nil {
			t.Fatal("a commit without its sync went well")
		}
		failing.Store(false)
		s.ready()
		if err := s.Commit(t.Context(), step); err != nil {
			t.Errorf("done %v: tried again: %v", step.Done, err)
		}
		if err := s.Commit(t.Context(), step); err == nil {
			t.Errorf("done %v: told twice", step.Done)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}
