package store

import (
	"bytes"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay/store/layout"
)

// greatLane is how many index entries give a destination tables of its own;
// with half as many it loses them again.
const greatLane = 20_000

// cuts says where one table of the database ends and the next begins. A table
// that is flushed gets merged with all that lies between its first and its last
// key, so that it must not span what has nothing to do with it:
//
//   - Each kind of key has its own tables. With those of messages and of the
//     index in one, it would reach over every queued message in between.
//   - So has a destination with a great backlog in the index. Without that, the
//     entries of its neighbours in the alphabet, which come and go all the
//     time, would have the whole backlog rewritten again and again.
type cuts struct {
	mu    sync.Mutex
	great []string // destinations with many, sorted
}

// note takes in how many index entries a destination had, and has now.
func (c *cuts) note(destination string, was, now int) {
	if now < greatLane && (now > greatLane/2 || was <= greatLane/2) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at, is := slices.BinarySearch(c.great, destination)
	switch {
	case now >= greatLane && !is:
		c.great = slices.Insert(c.great, at, destination)
	case now <= greatLane/2 && is:
		c.great = slices.Delete(c.great, at, at+1)
	}
}

// policy implements pebble.SpanPolicyFunc: the table that begins at start ends
// before end.
func (c *cuts) policy(start []byte) (_ pebble.SpanPolicy, end []byte, _ error) {
	if len(start) < len(layout.Ready) {
		return // none of our keys
	}
	prefix := string(start[:len(layout.Ready)])
	end = layout.After([]byte(prefix))
	if prefix != layout.Ready && prefix != layout.Held {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, destination := range c.great {
		own := layout.DestinationPrefix(prefix, destination)
		if bytes.Compare(start, own) < 0 {
			return pebble.SpanPolicy{}, own, nil
		}
		if bytes.HasPrefix(start, own) {
			return pebble.SpanPolicy{}, layout.After(own), nil
		}
	}
	return
}
