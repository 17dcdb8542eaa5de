package store

import (
	"context"
	"errors"
	"fmt"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// Commit makes a transition happen: the delivery's new state or its evidence,
// the events, the blocks and the report, in one batch. With the message's
// last delivery the body goes, and the message becomes evidence too.
//
// Nothing is applied, and the error is relay.ErrStale or relay.ErrNotFound,
// when t.Before is not what the store has: somebody claimed, took or ended
// the delivery since. A delivery that was held since is not stale: what was
// tried has happened, and if it waits on, it waits held.
//
// After any other error it may have happened or not, and another Commit of
// the same transition finds out.
func (s *Store) Commit(_ context.Context, t relay.Transition) error {
	en, err := s.enter()
	if err != nil {
		return err
	}
	defer s.leave()
	if len(t.Blocks) > 0 {
		s.blocking.Lock()
		defer s.blocking.Unlock()
	}
	id := t.Before.Key.Message
	defer s.lockMessage(id)()

	w := s.newWrite(en)
	defer w.close()
	held, err := w.giveUp(t)
	if err != nil {
		if !renews(t) && (errors.Is(err, relay.ErrStale) || errors.Is(err, relay.ErrNotFound)) {
			// It may be this transition, in the log after a commit in doubt:
			// whoever had this lease is done either way.
			s.flight.end(t.Before.Key, t.Before.Due)
		}
		return err
	}
	// A body in a spool file cannot come back with its message, so the end
	// of that message is durable before the file goes.
	gone, err := w.advance(t, held)
	sync := t.Sync || gone && s.spooled.has(id)
	if err == nil && t.Report != nil {
		err = w.report(*t.Report)
	}
	if err == nil {
		err = w.block(t.Blocks)
	}
	if err != nil {
		return err
	}
	w.tell(t.Events)
	if err := w.commit(sync); err != nil {
		return err
	}
	if renews(t) {
		s.flight.add(t.Before.Key, t.After.Due)
	} else {
		s.flight.drop(t.Before.Key)
	}
	if !sync {
		signal(s.soon)
	}
	if gone && s.spooled.has(id) {
		s.spooled.drop(id)
		s.remove(s.spoolFile(id))
	}
	return nil
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
	key := t.Before.Key
	v, found, err := w.en.get(deliveryKey(pDelivery, key))
	if err != nil {
		return false, err
	}
	if !found {
		return false, fmt.Errorf("%w: delivery %s", relay.ErrNotFound, key)
	}
	st, err := decodeState(v)
	if err != nil {
		return false, err
	}
	if !st.same(stateOf(t.Before)) {
		return false, fmt.Errorf("%w: %s", relay.ErrStale, key)
	}
	return st.held && !t.Before.Held, w.unindex(t.Before, st)
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
		v, err := encodeDelivery(d)
		if err != nil {
			return false, err
		}
		return false, errors.Join(w.set(deliveryKey(pDelivery, d.Key), v), w.index(d))
	}
	v, err := encodeFinished(d)
	if err != nil {
		return false, err
	}
	err = errors.Join(
		w.batch.Delete(deliveryKey(pDelivery, d.Key), nil),
		w.set(deliveryKey(pEvidence, d.Key), v),
	)
	if err != nil {
		return false, err
	}
	last, err := w.isLast(t)
	if err != nil || !last {
		return false, err
	}
	return true, w.end(t)
}

// isLast reports whether no other delivery of the message is queued. The
// caller has locked the message.
func (w *write) isLast(t relay.Transition) (bool, error) {
	if t.Message.Deliveries == 1 {
		return true, nil
	}
	last := true
	err := w.en.eachPrefix(messageKey(pDelivery, t.Before.Key.Message), func(key, _ []byte) (bool, error) {
		k, err := parseDeliveryKey(key)
		last = err == nil && k == t.Before.Key
		return last, err
	})
	return last, err
}

// end takes the message out of the queue. Its record stays as evidence.
func (w *write) end(t relay.Transition) error {
	id := t.Before.Key.Message
	m := t.Message
	m.ID = id
	text, err := encode(m)
	if err != nil {
		return err
	}
	w.messages--
	err = errors.Join(
		w.batch.Delete(messageKey(pMessage, id), nil),
		w.set(messageKey(pEvidence, id), text),
	)
	if w.s.spooled.has(id) {
		return errors.Join(err, w.batch.Delete(messageKey(pSpooled, id), nil))
	}
	return errors.Join(err, w.batch.Delete(messageKey(pBody, id), nil))
}

// report accepts a message of our own making.
func (w *write) report(r relay.Report) error {
	d := w.s.newDraft()
	defer d.end()
	if err := d.write(r.Body); err != nil {
		d.Discard()
		return err
	}
	return w.accept(r.Message, r.Deliveries, d)
}

// block puts rows into the block list, the newest of each address. The caller
// holds s.blocking.
func (w *write) block(rows []events.Block) error {
	var errs []error
	for i, row := range rows {
		superseded := false
		for _, later := range rows[i+1:] {
			superseded = superseded || sameRow(row, later)
		}
		if !superseded {
			errs = append(errs, w.putBlock(row))
		}
	}
	return errors.Join(errs...)
}
