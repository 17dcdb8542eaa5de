package bodies

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"

	"tlsrelay/relay"
)

// recentLimit is how many octets one generation of recent bodies holds.
const recentLimit = 4 << 20

// recent keeps the bodies of messages that were accepted and claimed a moment ago. Their
// first attempt begins at once, and need not read what was in memory just before. There
// are two generations. When the younger is full the elder goes, so that bodies whose
// attempt takes its time are not kept. Bodies.mu guards it.
type recent struct {
	young, elder map[relay.MessageID]*recentBody
	size         int // of the young ones
}

// recentBody is a body in a buffer that goes back to its pool when neither recent
// nor any reader has it any more.
type recentBody struct {
	buf  []byte
	refs atomic.Int32
	pool *sync.Pool
}

func (b *recentBody) release() {
	if b.refs.Add(-1) == 0 {
		buf := b.buf
		b.buf = nil
		b.pool.Put(&buf)
	}
}

// put takes over buf.
func (r *recent) put(id relay.MessageID, buf []byte, pool *sync.Pool) {
	b := &recentBody{buf: buf, pool: pool}
	b.refs.Store(1)
	if r.size += cap(buf); r.young == nil || r.size > recentLimit {
		for _, old := range r.elder {
			old.release()
		}
		r.elder, r.young, r.size = r.young, make(map[relay.MessageID]*recentBody), cap(buf)
	}
	r.young[id] = b
}

// get gives the body of a message, nil if it is not here.
func (r *recent) get(id relay.MessageID) relay.Body {
	b := r.young[id]
	if b == nil {
		b = r.elder[id]
	}
	if b == nil {
		return nil
	}
	b.refs.Add(1)
	return &sharedBody{inlineBody: b.buf, of: b}
}

// drop forgets the body of a message.
func (r *recent) drop(id relay.MessageID) {
	for _, generation := range []map[relay.MessageID]*recentBody{r.young, r.elder} {
		if b := generation[id]; b != nil {
			delete(generation, id)
			b.release()
		}
	}
}

// sharedBody is one reader's hold on a recent body.
type sharedBody struct {
	inlineBody
	of     *recentBody
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
