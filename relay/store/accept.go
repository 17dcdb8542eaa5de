package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/bodies"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
	"tlsrelay/relay/store/outbox"
	"tlsrelay/relay/store/tally"
)

// NewDraft begins a body of an account's message.
func (s *Store) NewDraft(who account.ID) relay.Draft { return s.bodies.NewDraft(who) }

// Accept makes a message, its deliveries and their first events durable, in
// one batch that is synced before it returns; concurrent calls share a sync.
// A large body is made durable before the batch that names it.
//
// On an error the message is not accepted. relay.ErrNoSpace, relay.ErrAccountFull
// and relay.ErrUnavailable may pass; any other error is a fault of the caller.
func (s *Store) Accept(ctx context.Context, m relay.Message, ds []relay.Delivery, body relay.Draft, evs []events.Event) error {
	d, err := s.bodies.Draft(body)
	if err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), d.Err()); err != nil {
		d.Discard()
		return err
	}
	db, err := s.engine.Enter()
	if err != nil {
		d.Discard()
		return err
	}
	defer s.engine.Leave()
	if err := s.admits(&m, ds); err != nil {
		d.Discard()
		return err
	}
	defer d.End()
	w := s.newWrite(db)
	defer w.close()
	if err := w.accept(m, ds, d); err != nil {
		d.Discard()
		return err
	}
	w.told = s.outbox.Tell(w, w.scratch, &m, evs)
	room, err := s.tally.Reserve(s.engine, m.Account, w.room(d))
	if err != nil {
		d.Discard()
		return err
	}
	defer room.End()
	if err := w.body(m.ID, d); err != nil {
		return err
	}
	if len(w.claimed) > 0 {
		d.KeepRecent(m.ID) // before anybody can end the message
	}
	if err := w.commit(true); err != nil {
		s.bodies.Forget(m.ID)
		w.doubt()
		return err
	}
	return nil
}

// Admit says whether an account may have another message now, as far as is known
// without the message; relay.ErrAccountFull: it may not. It is cheap.
func (s *Store) Admit(who account.ID) error {
	if s.engine.Ready() != nil {
		return nil // which others tell, and better
	}
	if err := s.tally.Admit(who, nil, 0); err != nil {
		return err
	}
	room, err := s.tally.Reserve(s.engine, who, 0)
	room.End()
	if errors.Is(err, relay.ErrAccountFull) {
		return err
	}
	return nil // that there is no room at all others tell, and better
}

// admits says whether the account of a message may have it. Reports come by
// Commit, and are never refused.
func (s *Store) admits(m *relay.Message, ds []relay.Delivery) error {
	n := 0
	for i := range ds {
		n += len(ds[i].Recipients)
	}
	return s.tally.Admit(m.Account, ds, n)
}

// accept adds a message to w, all but its body.
func (w *write) accept(m relay.Message, ds []relay.Delivery, d *bodies.Draft) error {
	m.Size, m.Deliveries = d.Size(), len(ds)
	err := w.message(&m)
	if err == nil && bytes.Compare(m.ID[:], w.s.sweptTo[:]) < 0 {
		err = errSwept
	}
	for i := 0; err == nil && i < len(ds); i++ {
		err = w.enqueue(m.ID, &ds[i])
	}
	if err == nil {
		w.queued.Messages++
		w.queued.Weigh(m.Account, m.Size)
	}
	return err
}

// room is how many octets of the disk it takes to commit w with the body of d: once
// in the log and once in a table, for the log goes when the table is there. A body
// in a spool file is there already.
func (w *write) room(d *bodies.Draft) int64 {
	n := int64(w.batch.Len())
	if _, inline := d.Inline(); inline {
		n += d.Size()
	}
	return 2 * n
}

// body adds the body of a message to w. It ends the draft's spool file one way or
// the other.
func (w *write) body(id relay.MessageID, d *bodies.Draft) error {
	if body, inline := d.Inline(); inline {
		return w.Set(layout.BodyKey(id), body)
	}
	// Before anybody can see the message and want its body.
	if err := d.Keep(id); err != nil {
		return err
	}
	w.spooled = append(w.spooled, id)
	return w.Set(layout.SpooledKey(id), nil)
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
	for _, e := range w.claimed {
		w.s.flight.add(e.Key, e.Due)
	}
	w.spooled = nil
	for _, key := range w.inserted {
		w.s.lows.lower(key)
	}
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

// doubts are the keys of batches that failed: the log may hold them all the
// same. They are taken out when the database is opened again; if the process
// dies before, the client that was told 451 sends the message again, as it
// does when a connection breaks before the 250 (RFC 1047).
type doubts struct {
	mu   sync.Mutex
	keys [][]byte
}

// doubt notes what w has set.
func (w *write) doubt() {
	w.s.doubts.mu.Lock()
	defer w.s.doubts.mu.Unlock()
	w.s.doubts.keys = append(w.s.doubts.keys, w.keys...)
}

// settleDoubts takes out what was not acknowledged.
func (s *Store) settleDoubts(db *engine.DB) error {
	s.doubts.mu.Lock()
	defer s.doubts.mu.Unlock()
	if len(s.doubts.keys) == 0 {
		return nil
	}
	b := db.NewBatch()
	for _, key := range s.doubts.keys {
		if err := b.Delete(key, nil); err != nil {
			return err
		}
	}
	if err := db.Apply(b, true); err != nil {
		return err
	}
	s.doubts.keys = nil
	return nil
}

// Body opens the stored content of a message: relay.ErrNotFound when the
// message has left the queue, relay.ErrNoBody when it is there without it.
func (s *Store) Body(_ context.Context, id relay.MessageID) (relay.Body, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer s.engine.Leave()
	if body, err := s.bodies.Open(id); body != nil || err != nil {
		return body, err
	}
	v, found, err := db.Get(layout.BodyKey(id))
	switch {
	case err != nil:
		return nil, err
	case found:
		return bodies.Inline(v), nil
	}
	queued, err := queues(db, id, func(relay.DeliveryKey) bool { return true })
	switch {
	case err != nil:
		return nil, err
	case queued:
		return nil, fmt.Errorf("%w: %s", relay.ErrNoBody, id)
	}
	return nil, relay.ErrNotFound
}
