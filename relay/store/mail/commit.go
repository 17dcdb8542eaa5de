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

// Commit makes a transition happen: the delivery's new state, the events, the
// blocks and the report, in one batch. What has finished stays as evidence;
// with the message's last delivery the body goes.
//
// Nothing is applied, and the error is relay.ErrStale or relay.ErrNotFound,
// when t.Before is not what the store has: somebody claimed, took or ended
// the delivery since. A delivery that was held since is not stale: what was
// tried has happened, and if it waits on, it waits held.
//
// With relay.ErrUnrecordable nothing is applied either. After any other error it may
// have happened or not. Another Commit of the same transition finds out: it makes it
// happen, or returns nil because it had.
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
	// A body in a spool file cannot come back with its message, so the end
	// of that message is durable before the file goes.
	gone, err := w.apply(t, held)
	if err != nil {
		return err
	}
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
// the message has left the queue by it.
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

// refused is the answer to a transition whose delivery is not as claimed. It
// may be this transition that changed it, in a commit whose failure was
// reported though the log has it; then it has happened.
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

// happened reports whether the newest transition of the delivery is this one.
// The record tells: it has the attempt in it, and claims and operators only
// touch the state before the text.
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

// renews reports whether a transition only moves the end of a lease: whoever
// tries the delivery goes on. An attempt that ended has left its evidence, and
// one given back does not count.
func renews(t relay.Transition) bool {
	return !t.Done && t.After.Attempts == t.Before.Attempts && t.After.Last == t.Before.Last
}

// giveUp checks that the delivery is as claimed and takes its place in the
// queue away. held is whether it was held since.
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

// claimLost reports whether a delivery is not as claimed because the record of
// the claim, for which nobody waits, went down with a database instance: nobody
// has claimed it since, and this transition has not happened.
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

// report accepts a message of our own making.
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
