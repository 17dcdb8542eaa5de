package tally

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// Count adds what was queued when an instance of the database was opened.
func (t *Tally) Count(ctx context.Context, db *engine.DB, at pebble.Reader) error {
	err := t.countIndex(ctx, db, at, layout.Ready, &t.waiting)
	if err == nil {
		err = t.countIndex(ctx, db, at, layout.Held, &t.held)
	}
	return err
}

// countIndex counts the deliveries of one index, and the messages whose first
// queued delivery is among them.
func (t *Tally) countIndex(ctx context.Context, db *engine.DB, at pebble.Reader, prefix string, to *atomic.Int64) error {
	it, err := at.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: layout.After([]byte(prefix))})
	if err != nil {
		return err
	}
	var run move // the entries of one destination and account
	var n, messages int64
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var e layout.IndexEntry
		if e, err = layout.ParseIndexKey(it.Key()); err != nil {
			break
		}
		if e.Lane.Destination != run.destination || e.Who != run.who {
			t.Add(&Delta{moves: []move{run}})
			run = move{who: e.Who, destination: e.Lane.Destination}
		}
		var first bool
		if first, err = isFirst(at, e.Key); first {
			messages++
			run.octets += sizeOf(at, e.Key.Message)
		}
		run.entries++
		run.recipients += recipientsOf(at, it, e.Key)
		if n++; n%4096 == 0 && err == nil {
			err = cmp.Or(ctx.Err(), db.Failure())
		}
	}
	t.Add(&Delta{moves: []move{run}})
	to.Add(n)
	t.messages.Add(messages)
	return errors.Join(err, it.Close())
}

// recipientsOf gives how many recipients the index entry that it stands at counts
// for. One of an older program does not say.
func recipientsOf(r pebble.Reader, it *pebble.Iterator, k relay.DeliveryKey) int {
	if v, err := it.ValueAndErr(); err == nil {
		if n, known := layout.ParseIndexValue(v); known {
			return n
		}
	}
	v, closer, err := r.Get(layout.DeliveryKey(k))
	if err != nil {
		return 0 // a Claim of it logs the error
	}
	defer closer.Close()
	d, _, _ := layout.DecodeDelivery(v)
	return layout.WaitingRecipients(&d)
}

// sizeOf gives the octets of a message's body.
func sizeOf(r pebble.Reader, id relay.MessageID) int64 {
	v, closer, err := r.Get(layout.MessageKey(id))
	if err != nil {
		return 0 // a Claim of it logs the error
	}
	defer closer.Close()
	m, _ := layout.Decode[relay.Message](v)
	return m.Size
}

// isFirst reports whether no delivery of the message with a lower number is
// queued.
func isFirst(r pebble.Reader, k relay.DeliveryKey) (bool, error) {
	for n := range k.Number {
		v, closer, err := r.Get(layout.DeliveryKey(relay.DeliveryKey{Message: k.Message, Number: n}))
		if errors.Is(err, pebble.ErrNotFound) {
			continue
		}
		if err != nil {
			return false, err
		}
		queued := layout.IsQueued(v)
		if err := closer.Close(); err != nil || queued {
			return false, err
		}
	}
	return true, nil
}
