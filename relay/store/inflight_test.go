package store_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/storetest"
)

// A commit whose sync failed may be in the log all the same. Trying it again
// finds that out, and whoever had the delivery no longer has it: an operator
// can have it tried.
func TestRetryAfterAnUnsureCommit(t *testing.T) {
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

// An unsure commit that did happen is told as such, once: its outcome is not
// somebody else's.
func TestUnsureCommitHappened(t *testing.T) {
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

// stalling is a disk whose syncs of the log can be held up.
type stalling struct {
	vfs.FS
	until atomic.Pointer[chan struct{}] // nil: they are not
}

func newStalling() *stalling {
	d := &stalling{}
	d.FS = errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if until := d.until.Load(); until != nil && op.Kind == errorfs.OpFileSyncData && strings.HasSuffix(op.Path, ".log") {
			<-*until
		}
		return nil
	}))
	return d
}

// stall holds syncs up until resume is called.
func (d *stalling) stall() (resume func()) {
	until := make(chan struct{})
	d.until.Store(&until)
	return func() { d.until.Store(nil); close(until) }
}

// seen waits until a message can be seen, which it can before it is synced.
func (r *running) seen(id relay.MessageID) {
	r.t.Helper()
	for start := time.Now(); ; runtime.Gosched() {
		_, _, err := r.Message(r.t.Context(), id)
		if err == nil {
			return
		}
		if time.Since(start) > 20*time.Second {
			r.t.Fatal(err)
		}
	}
}

// A message can be claimed before its Accept has returned, and its body is
// there then, in a spool file as well.
func TestLargeBodyBeforeItsSync(t *testing.T) {
	d := newStalling()
	s := run(t, d)
	resume := d.stall()
	m, ds := storetest.NewMessage(time.Now(), "a@example.com")
	body := bytes.Repeat([]byte("large\r\n"), 300<<10/7)
	accepted := make(chan error, 1)
	go func() { accepted <- storetest.Accept(context.Background(), s.Store, m, ds, body) }()
	s.seen(m.ID)
	got, _, err := s.Claim(t.Context(), ds[0].Lane, ds[0].Account, time.Now(), 5, func(int) time.Time { return time.Now().Add(time.Hour) }, nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("claimed %v, %v", got, err)
	}
	if got, err := storetest.ReadBody(t.Context(), s.Store, m.ID); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d octets, %v", len(got), err)
	}
	resume()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Verify(), s.stop()); err != nil {
		t.Fatal(err)
	}
}

// An endpoint is told of its rows once they are handed out, and not while the
// batch of another account holds them up.
func TestWakeWaitsForEarlierRows(t *testing.T) {
	d := newStalling()
	s := run(t, d)
	for _, id := range []string{"1", "2"} {
		e := webhookEndpoint()
		e.ID, e.Account = "e"+id, id
		if err := storetest.PutEndpoint(t.Context(), s, e); err != nil {
			t.Fatal(err)
		}
	}
	letter := func(who account.ID) (relay.Message, []relay.Delivery) {
		m, ds := storetest.NewMessage(time.Now(), "a@example.com")
		m.Account, ds[0].Account = who, who
		ds[0].Attempts, ds[0].Due = 1, time.Now().Add(time.Hour)
		return m, ds
	}
	m2, ds2 := letter("2")
	if err := storetest.Accept(t.Context(), s.Store, m2, ds2, []byte("x\r\n")); err != nil {
		t.Fatal(err)
	}
	woken := make(chan string, 10)
	s.Wake(func(id string) { woken <- id })

	resume := d.stall()
	m1, ds1 := letter("1")
	accepted := make(chan error, 1)
	go func() { accepted <- storetest.Accept(context.Background(), s.Store, m1, ds1, []byte("x\r\n")) }()
	s.seen(m1.ID)
	if err := s.Commit(t.Context(), storetest.Delivered(relay.Claimed{Message: m2, Delivery: ds2[0]}, time.Now())); err != nil {
		t.Fatal(err)
	}
	select {
	case id := <-woken:
		t.Errorf("%s was woken for what it cannot have", id)
	default:
	}
	resume()
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"e1", "e2"} { // both in the course of that Accept
		select {
		case id := <-woken:
			if rows, err := s.Rows(t.Context(), id, webhook.From(0), 1<<20); id != want || err != nil || len(rows) == 0 {
				t.Errorf("woken %s for %d rows, %v", id, len(rows), err)
			}
		default:
			t.Errorf("%s was not woken", want)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// What an account removes of its block list, a synced write each, holds up no block
// of another account.
func TestBlocksOfOthersAreNotWaitedFor(t *testing.T) {
	d := newStalling()
	s := run(t, d)
	block := func(who account.ID) relay.Transition {
		m, ds := storetest.NewMessage(time.Now(), "a@example.com")
		m.Account, ds[0].Account = who, who
		ds[0].Attempts, ds[0].Due = 1, time.Now().Add(time.Hour)
		if err := storetest.Accept(t.Context(), s.Store, m, ds, []byte("x\r\n")); err != nil {
			t.Fatal(err)
		}
		return storetest.Blocked(relay.Claimed{Message: m, Delivery: ds[0]}, time.Now())
	}
	if err := s.Commit(t.Context(), block("2")); err != nil {
		t.Fatal(err)
	}
	blocked := func(who string) bool {
		_, err := s.Block(t.Context(), who, "a@example.com")
		return err == nil
	}
	others := block("1")
	resume := sync.OnceFunc(d.stall())
	defer resume()
	ended := make(chan error, 2)
	go func() { ended <- s.DeleteBlock(context.Background(), "2", "a@example.com") }()
	eventually(t, "a block is removed, and that is not synced", func() bool { return !blocked("2") })
	go func() { ended <- s.Commit(context.Background(), others) }()
	eventually(t, "another account's block is written", func() bool { return blocked("1") })
	resume()
	if err := errors.Join(<-ended, <-ended, s.Verify(), s.stop()); err != nil {
		t.Fatal(err)
	}
}
