package engine

import (
	"bytes"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay/store/layout"
)

// manyEntries is how many index entries give a destination tables of its own;
// with half as many it loses them again.
const manyEntries = 20_000

// Splits says where one table of the database ends and the next begins. A table
// that is flushed gets merged with all that lies between its first and its last
// key, so that it must not span what has nothing to do with it:
//
//   - Each kind of key has its own tables. With those of messages and of the
//     index in one, it would reach over every queued message in between.
//   - So has a destination with a great backlog in the index. Without that, the
//     entries of its neighbours in the alphabet, which come and go all the
//     time, would have the whole backlog rewritten again and again.
type Splits struct {
	great atomic.Pointer[[]string] // destinations with many, sorted; nil: none
}

// Note takes in how many index entries a destination had, and has now. The caller sees
// to it that one call follows the other.
func (s *Splits) Note(destination string, was, now int) {
	if now < manyEntries && (now > manyEntries/2 || was <= manyEntries/2) {
		return
	}
	great := s.list()
	at, is := slices.BinarySearch(great, destination)
	switch {
	case now >= manyEntries && !is:
		great = slices.Insert(slices.Clone(great), at, destination)
	case now <= manyEntries/2 && is:
		great = slices.Delete(slices.Clone(great), at, at+1)
	default:
		return
	}
	s.great.Store(&great)
}

// list gives the destinations with many. Nobody changes it.
func (s *Splits) list() []string {
	if great := s.great.Load(); great != nil {
		return *great
	}
	return nil
}

// policy implements pebble.SpanPolicyFunc: the table that begins at start ends
// before end.
func (s *Splits) policy(start []byte) (_ pebble.SpanPolicy, end []byte, _ error) {
	if len(start) < len(layout.Ready) {
		return // none of our keys
	}
	prefix := string(start[:len(layout.Ready)])
	end = layout.After([]byte(prefix))
	if prefix != layout.Ready && prefix != layout.Held {
		return
	}
	for _, destination := range s.list() {
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
