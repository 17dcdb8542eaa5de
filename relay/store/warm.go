package store

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"

	"tlsrelay/relay"
)

// warmLimit is how many octets of bodies one generation of warm ones holds.
const warmLimit = 4 << 20

// warm keeps the bodies of messages that were accepted a moment ago and claimed
// by that: their first attempt begins at once, and need not look for what was
// in memory just now. There are two generations; when the younger is full the
// elder goes, so that bodies whose attempt takes its time are not kept.
type warm struct {
	mu           sync.Mutex
	young, elder map[relay.MessageID]*warmBody
	size         int // of the young ones
}

// warmBody is a body in a buffer that goes back to its pool when neither warm
// nor any reader has it any more.
type warmBody struct {
	buf  []byte
	refs atomic.Int32
	pool *sync.Pool
}

func (b *warmBody) release() {
	if b.refs.Add(-1) == 0 {
		buf := b.buf
		b.buf = nil
		b.pool.Put(&buf)
	}
}

// put takes over buf.
func (w *warm) put(id relay.MessageID, buf []byte, pool *sync.Pool) {
	b := &warmBody{buf: buf, pool: pool}
	b.refs.Store(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.size += cap(buf); w.young == nil || w.size > warmLimit {
		for _, old := range w.elder {
			old.release()
		}
		w.elder, w.young, w.size = w.young, make(map[relay.MessageID]*warmBody), cap(buf)
	}
	w.young[id] = b
}

// get gives the body of a message, nil if it is not here.
func (w *warm) get(id relay.MessageID) relay.Body {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.young[id]
	if b == nil {
		b = w.elder[id]
	}
	if b == nil {
		return nil
	}
	b.refs.Add(1)
	return &sharedBody{inlineBody: b.buf, of: b}
}

// drop forgets the body of a message.
func (w *warm) drop(id relay.MessageID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, generation := range []map[relay.MessageID]*warmBody{w.young, w.elder} {
		if b := generation[id]; b != nil {
			delete(generation, id)
			b.release()
		}
	}
}

// sharedBody is one reader's hold on a warm body.
type sharedBody struct {
	inlineBody
	of     *warmBody
	closed atomic.Bool
}

// Close gives up the hold; after it the octets may be another message's.
func (b *sharedBody) Close() error {
	if !b.closed.Swap(true) {
		b.of.release()
	}
	return nil
}

// inlineBody is a body in memory.
type inlineBody []byte

func (b inlineBody) NewReader() io.Reader { return bytes.NewReader(b) }
func (b inlineBody) Size() int64          { return int64(len(b)) }
func (b inlineBody) Close() error         { return nil }
