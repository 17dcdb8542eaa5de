package store_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"tlsrelay/events/webhook"
	"tlsrelay/relay"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

func open(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	s, err := store.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func webhookEndpoint() webhook.Endpoint {
	return webhook.Endpoint{ID: "e", Account: "1", Enabled: true, Processed: true, Delivered: true}
}

// queueOne has s accept one message.
func queueOne(t *testing.T, s *store.Store, body []byte) (relay.Message, []relay.Delivery) {
	t.Helper()
	m, ds := storetest.NewMessage(time.Now(), "a@example.com")
	if err := storetest.Accept(t.Context(), s, m, ds, body); err != nil {
		t.Fatal(err)
	}
	return m, ds
}

// The log ends in the middle of a record, at many places in it: all messages
// but the one that was being written are there, and of that one nothing.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Options{Dir: dir})
	var ids []relay.MessageID
	for range 3 {
		m, _ := queueOne(t, s, bytes.Repeat([]byte("x"), 50))
		ids = append(ids, m.ID)
	}
	log := newestLog(t, dir)
	whole := contents(t, log)
	last, _ := queueOne(t, s, bytes.Repeat([]byte("y"), 50))
	longer := contents(t, log)
	if len(longer) <= len(whole) {
		t.Fatal("the log has not grown")
	}
	for cut := len(whole); cut <= len(longer); cut += 41 {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		torn := filepath.Join(copied, "db", filepath.Base(log))
		if err := os.WriteFile(torn, longer[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, store.Options{Dir: copied})
		if err := again.Verify(); err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, len(longer), err)
		}
		for _, id := range ids {
			if _, err := storetest.ReadBody(t.Context(), again, id); err != nil {
				t.Fatalf("cut at %d of %d: %v", cut, len(longer), err)
			}
		}
		if _, _, err := again.Message(t.Context(), last.ID); !errors.Is(err, relay.ErrNotFound) && cut < len(longer)-20 {
			t.Fatalf("cut at %d of %d: the torn message is there: %v", cut, len(longer), err)
		}
		again.Close()
	}
}

// newestLog finds the write-ahead log that is being written.
func newestLog(t *testing.T, dir string) string {
	logs, err := filepath.Glob(filepath.Join(dir, "db", "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("no log: %v", err)
	}
	return logs[len(logs)-1]
}

// contents reads a log without the room that was set aside behind it.
func contents(t *testing.T, name string) []byte {
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimRight(b, "\x00")
}

// A spool file without a message goes; a message without its spool file
// stays, and says what it lacks.
func TestSpoolFiles(t *testing.T) {
	dir := t.TempDir()
	s := open(t, store.Options{Dir: dir})
	big := bytes.Repeat([]byte("x"), 300<<10)
	m, ds := queueOne(t, s, big)
	kept, _ := queueOne(t, s, big)
	draft := s.NewDraft("")
	draft.Write(big) // and the process dies
	s.Close()

	spool := filepath.Join(dir, "spool")
	orphan := relay.NewMessageID(time.Now()).String()
	if err := os.WriteFile(filepath.Join(spool, orphan), big, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(spool, m.ID.String())); err != nil {
		t.Fatal(err)
	}
	s = open(t, store.Options{Dir: dir})
	left, err := os.ReadDir(spool)
	if err != nil || len(left) != 1 || left[0].Name() != kept.ID.String() {
		t.Fatalf("left %v, %v", left, err)
	}
	if _, err := s.Body(t.Context(), m.ID); !errors.Is(err, relay.ErrNoBody) {
		t.Fatalf("a lost body: %v", err)
	}
	if _, _, err := s.Message(t.Context(), m.ID); err != nil {
		t.Fatal(err)
	}
	got, _, err := s.Claim(t.Context(), ds[0].Lane, "1", time.Now(), 1, func(int) time.Time { return time.Now() }, nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("it cannot be deferred: %v, %v", got, err)
	}
}

// What is finished without a sync is on the disk before its events leave.
func TestRowsAreDurable(t *testing.T) {
	d := newDisk()
	s := open(t, options(d.fs)) // without Run nothing else syncs
	if err := storetest.PutEndpoint(t.Context(), s, webhookEndpoint()); err != nil {
		t.Fatal(err)
	}
	m, ds := storetest.NewMessage(time.Now(), "a@example.com")
	ds[0].Attempts = 1
	if err := storetest.Accept(t.Context(), s, m, ds, nil); err != nil {
		t.Fatal(err)
	}
	tr := storetest.Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, time.Now())
	if tr.Sync {
		t.Fatal("a delivery need not be synced")
	}
	if err := s.Commit(t.Context(), tr); err != nil {
		t.Fatal(err)
	}
	delivered := func(fs vfs.FS) bool {
		t.Helper()
		s := open(t, options(fs))
		defer s.Close()
		_, ds, err := s.Message(t.Context(), m.ID)
		if err != nil {
			t.Fatal(err)
		}
		return len(ds[0].Waiting()) == 0
	}
	if delivered(d.CrashClone(vfs.CrashCloneCfg{})) {
		t.Fatal("it was synced, so this test shows nothing")
	}
	rows, err := s.Rows(t.Context(), "e", webhook.From(0), 1<<20)
	if err != nil || len(rows) != 2 {
		t.Fatalf("%d rows, %v", len(rows), err)
	}
	if !delivered(d.CrashClone(vfs.CrashCloneCfg{})) {
		t.Fatal("an event left before its state was durable")
	}
}

// Below min_free_disk nothing new is accepted, and what was accepted goes on.
func TestMinFreeDisk(t *testing.T) {
	fs := vfs.NewMem()
	usage := func(free uint64) { fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40}) }
	o := options(fs)
	o.MinFreeDisk = 1 << 20
	usage(4 << 20)
	s := open(t, o)
	m, ds := queueOne(t, s, nil)
	big := s.NewDraft("")
	if _, err := big.Write(make([]byte, 300<<10)); err != nil {
		t.Fatal(err)
	}
	usage(1<<20 - 1)
	if _, err := big.Write(make([]byte, 1<<20)); !errors.Is(err, relay.ErrNoSpace) {
		t.Fatalf("a large body goes on: %v", err)
	}
	if _, err := big.Write([]byte("x")); !errors.Is(err, relay.ErrNoSpace) {
		t.Fatalf("a body with a hole goes on: %v", err)
	}
	n, nds := storetest.NewMessage(time.Now(), "a@example.com")
	if err := s.Accept(t.Context(), n, nds, big, nil); !errors.Is(err, relay.ErrNoSpace) {
		t.Fatalf("a body with a hole is accepted: %v", err)
	}
	if err := storetest.Accept(t.Context(), s, n, nds, nil); !errors.Is(err, relay.ErrNoSpace) {
		t.Fatalf("accepted: %v", err)
	}
	got, _, err := s.Claim(t.Context(), ds[0].Lane, "1", time.Now(), 1, func(int) time.Time { return time.Now() }, nil)
	if err != nil || len(got) != 1 || got[0].Message.ID != m.ID {
		t.Fatal(got, err)
	}
	if err := s.Commit(t.Context(), storetest.Delivered(got[0], time.Now())); err != nil {
		t.Fatal(err)
	}
	usage(1 << 30)
	queueOne(t, s, nil)
}

// What could not be read when it was due is not stepped over for good, though
// others behind it wait longer.
func TestUnreadableDelivery(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	_, ds := queueOne(t, s, nil)
	m, later := storetest.NewMessage(time.Now(), "a@example.com")
	later[0].Due = time.Now().Add(time.Hour)
	if err := storetest.Accept(t.Context(), s, m, later, nil); err != nil {
		t.Fatal(err)
	}
	restore, err := s.Spoil(ds[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	claim := func() []relay.Claimed {
		got, _, err := s.Claim(t.Context(), ds[0].Lane, "1", time.Now(), 5, func(int) time.Time { return time.Now().Add(time.Hour) }, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := claim(); len(got) != 0 {
		t.Fatal(got)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if got := claim(); len(got) != 1 || got[0].Delivery.Key != ds[0].Key {
		t.Fatalf("claimed %v", got)
	}
}

// A delivery that cannot be read keeps the body of its message: somebody has to look
// at it before the message may go.
func TestUnreadableDeliveryKeepsTheBody(t *testing.T) {
	s := open(t, options(vfs.NewMem()))
	now := time.Now()
	m, ds := storetest.NewMessage(now, "a@one.example", "a@two.example")
	if err := storetest.Accept(t.Context(), s, m, ds, []byte("x\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Spoil(ds[0].Key); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), storetest.Delivered(relay.Claimed{Message: m, Delivery: ds[1]}, now)); err != nil {
		t.Fatal(err)
	}
	if _, err := storetest.ReadBody(t.Context(), s, m.ID); err != nil {
		t.Errorf("the body: %v", err)
	}
}

// Evidence goes with the retention, and nothing else does.
func TestSweep(t *testing.T) {
	s := open(t, store.Options{Dir: t.TempDir(), Retention: 24 * time.Hour})
	now := time.Now()
	finish := func(at time.Time) relay.MessageID {
		m, ds := storetest.NewMessage(at, "a@example.com")
		ds[0].Attempts = 1
		if err := storetest.Accept(t.Context(), s, m, ds, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Commit(t.Context(), storetest.Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, now)); err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	old, young := finish(now.Add(-25*time.Hour)), finish(now.Add(-23*time.Hour))
	waiting, wds := storetest.NewMessage(now.Add(-48*time.Hour), "a@example.com")
	if err := storetest.Accept(t.Context(), s, waiting, wds, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Message(t.Context(), old); !errors.Is(err, relay.ErrNotFound) {
		t.Fatalf("past the retention: %v", err)
	}
	for _, id := range []relay.MessageID{young, waiting.ID} {
		if _, ds, err := s.Message(t.Context(), id); err != nil || len(ds) != 1 {
			t.Fatalf("%v, %v", ds, err)
		}
	}
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
}

// The finish of a delivered message is not waited for. When the disk fails
// before it is written, the message is not delivered again for that.
func TestFinishLostWithTheDisk(t *testing.T) {
	d := newDisk()
	s := run(t, d.fs)
	m, ds := storetest.NewMessage(time.Now(), "a@example.com")
	ds[0].Attempts, ds[0].Due = 1, time.Now().Add(5*time.Minute)
	if err := storetest.Accept(t.Context(), s.Store, m, ds, nil); err != nil {
		t.Fatal(err)
	}
	old, committed := s.Instance(), make(chan struct{})
	d.once(committed)
	if err := s.Commit(t.Context(), storetest.Delivered(relay.Claimed{Message: m, Delivery: ds[0]}, time.Now())); err != nil {
		t.Fatal(err)
	}
	close(committed)
	s.reopened(old)
	got, _, err := s.Claim(t.Context(), ds[0].Lane, ds[0].Account, time.Now().Add(time.Hour), 5, func(int) time.Time { return time.Now().Add(2 * time.Hour) }, nil)
	if err != nil || len(got) != 0 {
		t.Errorf("claimed again %v, %v", got, err)
	}
	if _, err := s.Body(t.Context(), m.ID); !errors.Is(err, relay.ErrNotFound) {
		t.Errorf("the body: %v", err)
	}
	if messages, waiting, _ := s.Depth(); messages != 0 || waiting != 0 {
		t.Errorf("%d messages, %d waiting", messages, waiting)
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if n := s.Unsynced(); n != 0 {
		t.Errorf("%d outcomes are still remembered", n)
	}
}

// Nor is the record of a claim. When that is lost, the outcome of the attempt
// counts all the same; and without an outcome the delivery can be claimed again.
func TestClaimLostWithTheDisk(t *testing.T) {
	for _, outcome := range []bool{true, false} {
		d := newDisk()
		s := run(t, d.fs)
		_, ds := queueOne(t, s.Store, nil)
		claim := func() []relay.Claimed {
			now := time.Now()
			got, _, err := s.Claim(t.Context(), ds[0].Lane, ds[0].Account, now, 5, func(int) time.Time { return now.Add(5 * time.Minute) }, nil)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		old, claimed := s.Instance(), make(chan struct{})
		d.once(claimed)
		got := claim()
		close(claimed)
		if len(got) != 1 {
			t.Fatalf("claimed %v", got)
		}
		s.reopened(old)
		if outcome {
			delivered := storetest.Delivered(got[0], time.Now())
			if err := s.Commit(t.Context(), delivered); err != nil {
				t.Errorf("the outcome: %v", err)
			}
			if err := s.Commit(t.Context(), delivered); !errors.Is(err, relay.ErrNotFound) {
				t.Errorf("the outcome once more: %v", err)
			}
		}
		if again := claim(); outcome != (len(again) == 0) {
			t.Errorf("outcome %t: claimed again %v", outcome, again)
		}
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// meddler is a context that does something when it is first asked.
type meddler struct {
	context.Context
	once sync.Once
	do   func()
}

func (m *meddler) Err() error {
	m.once.Do(m.do)
	return nil
}

// A message that is released, or held, while the sweep looks at what is queued
// is spared like any other.
func TestSweepDuringHoldAndRelease(t *testing.T) {
	for _, act := range []relay.Act{relay.ActHold, relay.ActRelease} {
		s := open(t, store.Options{Dir: t.TempDir(), Retention: 24 * time.Hour})
		now := time.Now()
		var old relay.MessageID
		for _, c := range []struct {
			age  time.Duration
			rcpt string
		}{{0, "a@a.example"}, {48 * time.Hour, "b@b.example"}, {0, "c@c.example"}} {
			m, ds := storetest.NewMessage(now.Add(-c.age), c.rcpt)
			ds[0].Held = act == relay.ActRelease && c.age > 0
			if err := storetest.Accept(t.Context(), s, m, ds, nil); err != nil {
				t.Fatal(err)
			}
			if c.age > 0 {
				old = m.ID
			}
		}
		ctx := &meddler{Context: t.Context(), do: func() {
			if n, err := s.Act(t.Context(), act, relay.Selection{Message: old}, now); n != 1 || err != nil {
				t.Errorf("%s: %d, %v", act, n, err)
			}
		}}
		if err := s.Sweep(ctx, now); err != nil {
			t.Fatal(err)
		}
		if _, ds, err := s.Message(t.Context(), old); err != nil || len(ds) != 1 {
			t.Errorf("%s: a queued message is lost: %v", act, err)
		}
		if err := s.Verify(); err != nil {
			t.Error(err)
		}
	}
}

// A message that began before what a sweep under way removes is put off: the
// sweep has not seen it in the queue and would take it along.
func TestAcceptDuringSweep(t *testing.T) {
	s := open(t, store.Options{Dir: t.TempDir()})
	now := time.Now()
	late, ds := storetest.NewMessage(now.Add(-time.Hour), "a@example.com")
	young, yds := storetest.NewMessage(now, "a@example.com")
	done := s.Sweeping(relay.NewMessageID(now.Add(-time.Minute)))
	if err := storetest.Accept(t.Context(), s, late, ds, nil); !errors.Is(err, relay.ErrUnavailable) {
		t.Fatalf("below the line: %v", err)
	}
	if err := storetest.Accept(t.Context(), s, young, yds, nil); err != nil {
		t.Fatal(err)
	}
	done()
	if err := storetest.Accept(t.Context(), s, late, ds, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
}

// The gauges follow what happens, and count what was there before.
func TestDepth(t *testing.T) {
	reg := prometheus.NewRegistry()
	d := newDisk()
	o := options(d.fs)
	s := run(t, d.fs)
	queueOne(t, s.Store, nil)
	queueOne(t, s.Store, nil)
	if _, err := s.Act(t.Context(), relay.ActHold, relay.Selection{}, time.Now()); err != nil {
		t.Fatal(err)
	}
	queueOne(t, s.Store, nil)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	s = run(t, d.fs)
	queueOne(t, s.Store, nil)
	want := [3]int64{4, 2, 2}
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		m, w, h := s.Depth()
		if [3]int64{m, w, h} == want {
			break
		}
		if time.Since(start) > 10*time.Second {
			t.Fatalf("messages, waiting, held: %v, want %v", [3]int64{m, w, h}, want)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	o.Registerer = reg
	again := open(t, o)
	if got, err := reg.Gather(); err != nil || len(got) < 4 {
		t.Fatalf("%d metrics, %v", len(got), err)
	}
	again.Close()
	if got, err := reg.Gather(); err != nil || len(got) != 0 {
		t.Fatalf("%d metrics of a closed store, %v", len(got), err)
	}
}

// After Close every call says that there is no store.
func TestClosed(t *testing.T) {
	s := open(t, store.Options{Dir: t.TempDir()})
	m, ds := queueOne(t, s, nil)
	s.Close()
	if err := storetest.Accept(t.Context(), s, m, ds, nil); !errors.Is(err, relay.ErrUnavailable) {
		t.Fatal(err)
	}
	if err := s.Ready(); !errors.Is(err, relay.ErrUnavailable) {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A second process is told why it cannot have the directory.
func TestSecondProcess(t *testing.T) {
	if dir := os.Getenv("TLSRELAY_TEST_SECOND"); dir != "" {
		_, err := store.Open(store.Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), "another process has") {
			t.Fatalf("opened twice: %v", err)
		}
		return
	}
	dir := t.TempDir()
	open(t, store.Options{Dir: dir})
	cmd := exec.Command(os.Args[0], "-test.run=^TestSecondProcess$")
	cmd.Env = append(os.Environ(), "TLSRELAY_TEST_SECOND="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
