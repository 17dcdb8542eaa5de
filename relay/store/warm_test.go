package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/relay"
)

// A reader keeps its octets, whatever becomes of the message meanwhile.
func TestWarmBodyOutlivesItsMessage(t *testing.T) {
	var w warm
	var pool sync.Pool
	id := relay.NewMessageID(time.Now())
	w.put(id, []byte("first"), &pool)
	body := w.get(id)
	w.drop(id)
	if w.get(id) != nil {
		t.Error("a dropped body is still there")
	}
	if b, _ := pool.Get().(*[]byte); b != nil {
		t.Fatal("the buffer went back while it was read")
	}
	if got, err := io.ReadAll(body.NewReader()); err != nil || string(got) != "first" {
		t.Errorf("%q, %v", got, err)
	}
	body.Close()
	body.Close() // and no harm done
	if w.get(id) != nil {
		t.Error("it came back")
	}
}

// slowSync holds syncs back.
type slowSync struct {
	vfs.FS
	held atomic.Bool
	let  chan struct{}
}

type slowFile struct {
	vfs.File
	fs *slowSync
}

func (s *slowSync) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, c)
	return &slowFile{f, s}, err
}

func (s *slowSync) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.ReuseForWrite(from, to, c)
	return &slowFile{f, s}, err
}

func (f *slowFile) SyncData() error {
	if f.fs.held.Load() {
		<-f.fs.let
	}
	return f.File.SyncData()
}

// A message may end before its Accept has returned: it can be seen before it
// is durable. Its body is gone then all the same.
func TestWarmBodyOfAnEndedMessage(t *testing.T) {
	fs := &slowSync{FS: vfs.NewMem(), let: make(chan struct{})}
	s, err := Open(Options{Dir: "d", FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fs.held.Store(true)
	now := time.Now()
	m := relay.Message{ID: relay.NewMessageID(now), Account: "1", Accepted: now, Deliveries: 1}
	d := relay.Delivery{
		Key: relay.DeliveryKey{Message: m.ID}, Account: "1", Attempts: 1, Due: now.Add(time.Minute),
		Lane: relay.Lane{Destination: "x.example", Class: "o"},
	}
	body := s.NewDraft("")
	if _, err := body.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan error)
	go func() { accepted <- s.Accept(context.Background(), m, []relay.Delivery{d}, body, nil) }()
	for {
		c, err := s.Take(t.Context(), d.Key, now.Add(time.Hour))
		if errors.Is(err, relay.ErrNotFound) {
			runtime.Gosched()
			continue
		}
		if err == nil {
			err = s.Commit(t.Context(), relay.Transition{Message: m, Before: c.Delivery, After: c.Delivery, Done: true})
		}
		if err != nil {
			t.Fatal(err)
		}
		break
	}
	fs.held.Store(false)
	close(fs.let)
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Body(t.Context(), m.ID); !errors.Is(err, relay.ErrNotFound) {
		t.Errorf("the body of an ended message: %v", err)
	}
}

// What is kept stays within two generations, the newest among it.
func TestWarmIsBounded(t *testing.T) {
	var w warm
	var pool sync.Pool
	const size = warmLimit / 8
	var ids []relay.MessageID
	for range 40 {
		id := relay.NewMessageID(time.Now())
		ids = append(ids, id)
		w.put(id, bytes.Repeat([]byte("x"), size), &pool)
		if w.get(id) == nil {
			t.Fatal("what was just put is not there")
		}
	}
	kept := 0
	for _, id := range ids {
		if w.get(id) != nil {
			kept++
		}
	}
	if kept < 8 || kept > 16 {
		t.Errorf("%d bodies are kept", kept)
	}
}
