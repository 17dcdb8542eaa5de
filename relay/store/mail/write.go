package mail

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
	"tlsrelay/relay/store/outbox"
	"tlsrelay/relay/store/tally"
)

// write is one batch in the making, and what follows in memory when it has
// been committed.
type write struct {
	s     *Store
	db    *engine.DB
	batch *pebble.Batch
	keys  [][]byte // that are set

	scratch *[]byte // where records are encoded: the batch copies them

	queued   tally.Delta
	told     outbox.Told
	inserted [][]byte
	claimed  []layout.IndexEntry
	spooled  []relay.MessageID // messages whose bodies are in spool files, until they are committed
}

// maxScratch is the largest buffer that is kept for the next write.
const maxScratch = 64 << 10

var scratches = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

func (s *Store) newWrite(db *engine.DB) *write {
	return &write{
		s: s, db: db, batch: db.NewBatch(), keys: make([][]byte, 0, 4),
		scratch: scratches.Get().(*[]byte),
	}
}

// Set implements tenants.Batch.
func (w *write) Set(key, value []byte) error {
	w.keys = append(w.keys, key)
	return w.batch.Set(key, value, nil)
}

// Delete implements tenants.Batch.
func (w *write) Delete(key []byte) error { return w.batch.Delete(key, nil) }

// DeleteRange implements tenants.Batch.
func (w *write) DeleteRange(lower, upper []byte) error { return w.batch.DeleteRange(lower, upper, nil) }

// commit applies the batch and then what it means in memory.
func (w *write) commit(sync bool) error {
	err := w.db.Apply(w.batch, sync)
	w.told.End(err == nil)
	if err != nil {
		return err
	}
	w.batch = nil
	w.s.tally.Add(&w.queued)
	w.s.memory.claimed(w.claimed)
	w.spooled = nil
	w.s.fronts.added(w.inserted)
	return nil
}

// close frees what commit has not.
func (w *write) close() {
	w.told.End(false)
	w.s.bodies.Unkeep(w.spooled)
	w.spooled = nil
	if w.batch != nil && w.db.Failure() == nil {
		w.batch.Close()
	}
	w.batch = nil
	if cap(*w.scratch) <= maxScratch {
		scratches.Put(w.scratch)
	}
	w.scratch = nil
}

// message adds the record of a message to w.
func (w *write) message(m *relay.Message) error {
	v, err := layout.AppendMessage((*w.scratch)[:0], m)
	if err != nil {
		return err
	}
	*w.scratch = v
	return w.Set(layout.MessageKey(m.ID), v)
}

// enqueue adds a delivery to w, with its place in the queue.
func (w *write) enqueue(id relay.MessageID, d *relay.Delivery) error {
	if d.Key.Message != id {
		return fmt.Errorf("store: delivery %s is not of message %s", d.Key, id)
	}
	if d.Attempts == 1 && !d.Held {
		w.claimed = append(w.claimed, layout.IndexEntry{Key: d.Key, Due: d.Due})
	}
	if err := w.record(d, false); err != nil {
		return err
	}
	return w.index(*d)
}

// record adds the record of a delivery to w.
func (w *write) record(d *relay.Delivery, done bool) error {
	v, err := layout.AppendDelivery((*w.scratch)[:0], d, done)
	if err != nil {
		return err
	}
	*w.scratch = v
	return w.Set(layout.DeliveryKey(d.Key), v)
}

// index adds the index entry that a delivery's state calls for.
func (w *write) index(d relay.Delivery) error {
	e := layout.EntryOf(d)
	n := layout.WaitingRecipients(&d)
	w.queued.Move(d.Account, d.Lane.Destination, 1, n)
	if d.Held {
		w.queued.Held++
		return w.Set(e.Encode(layout.Held), layout.IndexValue(n))
	}
	w.queued.Waiting++
	key := e.Encode(layout.Ready)
	w.inserted = append(w.inserted, key)
	return w.Set(key, layout.IndexValue(n))
}

// unindex takes the index entry of a delivery in state st away.
func (w *write) unindex(d relay.Delivery, st layout.State) error {
	e := layout.EntryOf(d)
	e.Due = st.Due
	w.queued.Move(d.Account, d.Lane.Destination, -1, -layout.WaitingRecipients(&d))
	if st.Held {
		w.queued.Held--
		return w.Delete(e.Encode(layout.Held))
	}
	w.queued.Waiting--
	return w.Delete(e.Encode(layout.Ready))
}
