package bodies

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"time"

	"tlsrelay/relay"
)

// A reader keeps its octets, whatever becomes of the message meanwhile.
func TestRecentBodyOutlivesItsMessage(t *testing.T) {
	var r recent
	var pool sync.Pool
	id := relay.NewMessageID(time.Now())
	r.put(id, []byte("first"), &pool)
	body := r.get(id)
	r.drop(id)
	if r.get(id) != nil {
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
	if r.get(id) != nil {
		t.Error("it came back")
	}
}

// What is kept stays within two generations, the newest among it.
func TestRecentIsBounded(t *testing.T) {
	var r recent
	var pool sync.Pool
	const size = recentLimit / 8
	var ids []relay.MessageID
	for range 40 {
		id := relay.NewMessageID(time.Now())
		ids = append(ids, id)
		r.put(id, bytes.Repeat([]byte("x"), size), &pool)
		if r.get(id) == nil {
			t.Fatal("what was just put is not there")
		}
	}
	kept := 0
	for _, id := range ids {
		if r.get(id) != nil {
			kept++
		}
	}
	if kept < 8 || kept > 16 {
		t.Errorf("%d bodies are kept", kept)
	}
}
