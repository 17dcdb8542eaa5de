package store

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

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
