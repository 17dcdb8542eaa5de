package store

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/relay"
)

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
func TestRecentBodyOfAnEndedMessage(t *testing.T) {
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
