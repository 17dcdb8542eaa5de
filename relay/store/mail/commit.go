// From a 250 to the block event, 9 of 10: this file makes all of that happen in one
// write: the block event waits in the outbox now. Next: events/webhook/loop.go.

package mail

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"tlsrelay/relay"
	"tlsrelay/relay/store/layout"
	"tlsrelay/relay/store/tenants"
)

// Commit makes a transition happen: the delivery's new state, the events, the blocks and
// the report, in one batch. A delivery that is done stays as evidence. When it is the last
// of its message, the body goes.
//
// Nothing is applied, and the error is relay.ErrStale or relay.ErrNotFound, when t.Before
// is not what the store has: somebody claimed, took or ended the delivery since. A delivery
// that an operator has held since is not stale, because the attempt did happen: its outcome
// is committed, and what still waits stays held.
//
// With relay.ErrUnrecordable nothing is applied either. After any other error the
// transition may have happened or not. Another Commit of the same transition makes it
// happen, or returns nil because it had happened.
func (s *Store) Commit(_ context.Context, t relay.Transition) error {
	if len(t.Blocks) > 0 {
		defer s.tenants.LockBlocks(t.Blocks[0].Account)() // all are of the message's
	}
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	id := t.Before.Key.Message
	defer s.lockMessage(id)()

	w := s.newWrite(db)
	defer w.close()
	held, err := w.giveUp(t)
	if err != nil {
		return s.refused(w, t, err)
	}
	gone, err := w.apply(t, held)
	if err != nil {
		return err
	}
	// If a crash took back the end of a message, its spool file would be missing. So the
	// end is durable before the file goes.
	sync := t.Sync || gone && s.bodies.Spooled(id)
	if err := w.commit(sync); err != nil {
		s.memory.failed(t)
		s.bodies.Forget(id) // if it did happen, the message may have ended
		return err
	}
	s.memory.committed(t, sync)
	if !sync {
		s.engine.SyncSoon()
	}
	if !gone {
		return nil
	}
	s.bodies.Remove(id)
	return nil
}

// apply adds all of a transition to w but the end of its claim. gone is whether
// the message leaves the queue. outbox.Tell adds a row for each endpoint that wants an
// event. When the batch is committed, those endpoints are woken (outbox.Told.End).
func (w *write) apply(t relay.Transition, held bool) (gone bool, err error) {
	gone, err = w.advance(t, held)
	if err == nil && t.Report != nil {
		err = w.report(*t.Report)
	}
	if err == nil {
		err = tenants.PutBlocks(w.db, w, t.Blocks)
	}
	if err == nil {
		w.told = w.s.outbox.Tell(w, w.scratch, &t.Message, t.Events)
	}
	return gone, err
}

// refused is the answer to a transition whose delivery is not as claimed. This transition
// itself may have changed it: a commit may report a failure and be in the database's log
// all the same. Then the answer is nil.
func (s *Store) refused(w *write, t relay.Transition, err error) error {
	if !errors.Is(err, relay.ErrStale) && !errors.Is(err, relay.ErrNotFound) || renews(t) {
		return err
	}
	// The attempt that had this lease is over either way.
	if !s.memory.refused(t) {
		return err
	}
	happened, readErr := w.happened(t)
	if readErr != nil {
		return readErr
	}
	s.memory.sure(t.Before.Key)
	if happened {
		return nil
	}
	return err
}

// happened reports whether the newest transition of the delivery is this one. A record is
// the state and then a text. The text has the attempt in it, and claims and operators
// change only the state. So the texts are compared.
func (w *write) happened(t relay.Transition) (bool, error) {
	v, found, err := w.db.Get(layout.DeliveryKey(t.Before.Key))
	if err != nil || !found {
		return false, err
	}
	st, err := layout.DecodeState(v)
	if err != nil || st.Done != t.Done {
		return false, err
	}
	for _, held := range []bool{t.After.Held, true} { // see advance
		d := t.After
		d.Held = held
		want, err := layout.EncodeDelivery(d, t.Done)
		if err != nil {
			return false, err
		}
		if bytes.Equal(v[layout.StateLen:], want[layout.StateLen:]) {
			return true, nil
		}
	}
	return false, nil
}

// renews reports whether a transition only moves the end of a lease, and the attempt goes
// on. An attempt that ended would change Last, and a claim given back would lower Attempts.
func renews(t relay.Transition) bool {
	return !t.Done && t.After.Attempts == t.Before.Attempts && t.After.Last == t.Before.Last
}

// giveUp checks that the delivery is as claimed, and ends the claim: it removes the entry
// that the delivery has in the index of its queue. held is whether an operator has held
// it since.
func (w *write) giveUp(t relay.Transition) (held bool, err error) {
	st, err := standing(w.db, t.Before.Key)
	if err != nil {
		return false, err
	}
	if !st.Same(layout.StateOf(t.Before)) {
		if lost, err := w.claimLost(t); err != nil || !lost {
			return false, cmp.Or(err, fmt.Errorf("%w: %s", relay.ErrStale, t.Before.Key))
		}
	}
	return st.Held && !t.Before.Held, w.unindex(t.Before, st)
}

// claimLost reports whether a delivery is not as claimed because the database failed and
// lost the claim, which is written without waiting for the disk. It is so if nobody has
// claimed the delivery since, and this transition has not happened.
func (w *write) claimLost(t relay.Transition) (bool, error) {
	last, unsure := w.s.memory.lease(t.Before.Key, t.Before.Due)
	if !last || !unsure {
		return last, nil
	}
	happened, err := w.happened(t)
	return !happened, err
}

// advance records the delivery's new state, or its end. gone is whether that
// was the message's last.
func (w *write) advance(t relay.Transition, held bool) (gone bool, err error) {
	d := t.After
	if d.Key != t.Before.Key {
		return false, fmt.Errorf("store: transition of %s gives %s", t.Before.Key, d.Key)
	}
	if !t.Done {
		d.Held = d.Held || held
	}
	if err := w.record(&d, t.Done); err != nil {
		return false, err
	}
	if !t.Done {
		return false, w.index(d)
	}
	more, err := w.others(t)
	if err != nil || more {
		return false, err
	}
	return true, w.end(d.Key.Message, t.Message)
}

// others reports whether another delivery of the message is queued. The
// caller has locked the message.
func (w *write) others(t relay.Transition) (bool, error) {
	if t.Message.Deliveries == 1 {
		return false, nil
	}
	return queues(w.db, t.Before.Key.Message, func(k relay.DeliveryKey) bool { return k != t.Before.Key })
}

// end takes a message out of the queue: its body goes.
func (w *write) end(id relay.MessageID, m relay.Message) error {
	w.queued.Messages--
	w.queued.Weigh(m.Account, -m.Size)
	if w.s.bodies.Spooled(id) {
		return w.Delete(layout.SpooledKey(id))
	}
	return w.Delete(layout.BodyKey(id))
}

// report accepts the report of a transition, as a message like any other.
func (w *write) report(r relay.Report) error {
	d := w.s.bodies.NewReport()
	defer d.End()
	_, err := d.Write(r.Body)
	if err == nil {
		err = w.accept(r.Message, r.Deliveries, d)
	}
	if err != nil {
		d.Discard()
		return err
	}
	return w.body(r.Message.ID, d)
}
