package mail

import (
	"bytes"
	"context"
	"errors"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/bodies"
	"tlsrelay/relay/store/layout"
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
		s.memory.unacknowledge(w.keys)
		return err
	}
	return nil
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

// Admit says whether an account may have another message now, as far as is known
// without the message; relay.ErrAccountFull: it may not. It is cheap.
func (s *Store) Admit(who account.ID) error {
	if s.engine.Ready() != nil {
		return nil // Accept gives the reason
	}
	if err := s.tally.Admit(who, nil, 0); err != nil {
		return err
	}
	room, err := s.tally.Reserve(s.engine, who, 0)
	room.End()
	if errors.Is(err, relay.ErrAccountFull) {
		return err
	}
	return nil // a disk without room at all is for Store.Room and Accept to tell
}
