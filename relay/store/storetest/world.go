package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/relay"
)

// World is a fixed piece of a relay's life, which remembers what the store
// promised. Play it on a store whose disk fails or whose power is cut, and
// let Check compare what is left with the promises.
type World struct {
	at time.Time

	mu       sync.Mutex
	accepted map[relay.MessageID]promise // Accept said yes
	refused  map[relay.MessageID]promise // Accept said no
	settled  map[relay.DeliveryKey]bool  // a synced transition was acknowledged
	blocked  blocking
}

// promise is a message as it was accepted.
type promise struct {
	body       []byte
	deliveries int
}

// blocking is the one block of the story: its parts come true together.
type blocking struct {
	key    relay.DeliveryKey
	report relay.MessageID
	told   bool // its commit was acknowledged
}

// NewWorld makes a world whose mail was sent at a time.
func NewWorld(at time.Time) *World {
	return &World{
		at:       at,
		accepted: make(map[relay.MessageID]promise),
		refused:  make(map[relay.MessageID]promise),
		settled:  make(map[relay.DeliveryKey]bool),
	}
}

// Promised gives a copy of w as it stands.
func (w *World) Promised() *World {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &World{
		at: w.at, accepted: maps.Clone(w.accepted), refused: maps.Clone(w.refused),
		settled: maps.Clone(w.settled), blocked: w.blocked,
	}
}

// Accepted is how many messages the store has taken.
func (w *World) Accepted() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.accepted)
}

// Play sends mail of every kind through s, and goes on where s fails.
func (w *World) Play(ctx context.Context, s Store) {
	_ = PutEndpoint(ctx, s, endpoint("e", "1", w.at)) // Check does not depend on it
	quick := w.accept(ctx, s, 10<<10, "a@quick.example")
	w.commit(ctx, s, quick, 0, Delivered)
	two := w.accept(ctx, s, 1000, "a@two.example", "b@three.example")
	w.commit(ctx, s, two, 0, Deferred)
	large := w.accept(ctx, s, inline+50_000, "a@large.example")
	w.block(ctx, s, w.accept(ctx, s, 500, "a@blocked.example"))
	w.commit(ctx, s, large, 0, Delivered)
	w.commit(ctx, s, two, 1, Delivered)
	w.accept(ctx, s, inline+100_000, "b@large.example")
	if quick := w.accept(ctx, s, 200<<10, "b@quick.example"); quick != nil {
		w.commit(ctx, s, quick, 0, Delivered)
		_, _ = s.Rows(ctx, "e", webhook.From(0), 1<<20)
	}
	w.accept(ctx, s, 100, "c@quick.example")
}

// inline is a size from which on a body is large for every store.
const inline = 256 << 10

// accept has s accept a message whose deliveries are claimed at once; nil
// when it refuses.
func (w *World) accept(ctx context.Context, s Store, size int, rcpts ...string) []relay.Claimed {
	m, ds := NewMessage(w.at, rcpts...)
	if len(rcpts) > 1 {
		sayMuch(&m)
	}
	for i := range ds {
		ds[i].Attempts, ds[i].Due = 1, w.at.Add(time.Hour)
	}
	body := bytes.Repeat(append(m.ID[:], "\r\n"...), size/18+1)
	err := Accept(ctx, s, m, ds, body)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.refused[m.ID] = promise{body, len(ds)}
		return nil
	}
	w.accepted[m.ID] = promise{body, len(ds)}
	var cs []relay.Claimed
	for _, d := range ds {
		cs = append(cs, relay.Claimed{Message: m, Delivery: d})
	}
	return cs
}

func (w *World) commit(ctx context.Context, s Store, cs []relay.Claimed, i int, outcome func(relay.Claimed, time.Time) relay.Transition) {
	if cs == nil {
		return
	}
	t := outcome(cs[i], w.at)
	err := s.Commit(ctx, t)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil && t.Sync {
		w.settled[t.Before.Key] = true
	}
}

func (w *World) block(ctx context.Context, s Store, cs []relay.Claimed) {
	if cs == nil {
		return
	}
	t := Blocked(cs[0], w.at)
	m, ds := NewMessage(w.at, "sender@report.example")
	m.Report = true
	t.Report = &relay.Report{Message: m, Deliveries: ds, Body: []byte("report")}
	w.mu.Lock()
	w.blocked = blocking{key: t.Before.Key, report: m.ID}
	w.mu.Unlock()
	if s.Commit(ctx, t) == nil {
		w.mu.Lock()
		w.blocked.told = true
		w.mu.Unlock()
	}
}

// Check says how what s has differs from what was promised. unmade is whether
// nothing may be left of a message that was refused, which a store can only
// see to as long as it is not itself cut off.
func (w *World) Check(ctx context.Context, s Store, unmade bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var errs []error
	for id, p := range w.accepted {
		errs = append(errs, whole(ctx, s, id, p))
	}
	for id, p := range w.refused {
		_, _, err := s.Message(ctx, id)
		switch {
		case err == nil && unmade:
			errs = append(errs, fmt.Errorf("message %s was refused, and is there", id))
		case err == nil:
			errs = append(errs, whole(ctx, s, id, p))
		case !errors.Is(err, relay.ErrNotFound):
			errs = append(errs, err)
		}
	}
	for key := range w.settled {
		errs = append(errs, settled(ctx, s, key))
	}
	return errors.Join(append(errs, w.checkBlock(ctx, s))...)
}

// whole checks that nothing of a message is missing.
func whole(ctx context.Context, s Store, id relay.MessageID, p promise) error {
	_, ds, err := s.Message(ctx, id)
	if err != nil {
		return fmt.Errorf("message %s: %w", id, err)
	}
	if len(ds) != p.deliveries {
		return fmt.Errorf("message %s has %d deliveries of %d", id, len(ds), p.deliveries)
	}
	waits := false
	for _, d := range ds {
		waits = waits || len(d.Waiting()) > 0
	}
	body, err := ReadBody(ctx, s, id)
	switch {
	case !waits && errors.Is(err, relay.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("message %s: body: %w", id, err)
	case !waits:
		return fmt.Errorf("message %s has ended, and its body is there", id)
	case !bytes.Equal(body, p.body):
		return fmt.Errorf("message %s: the body is not what was accepted", id)
	}
	return nil
}

// settled checks that the attempt that was told of is on record.
func settled(ctx context.Context, s Store, key relay.DeliveryKey) error {
	_, ds, err := s.Message(ctx, key.Message)
	if err != nil {
		return fmt.Errorf("delivery %s: %w", key, err)
	}
	for _, d := range ds {
		if d.Key == key && d.Last != nil {
			return nil
		}
	}
	return fmt.Errorf("delivery %s: the attempt is not on record", key)
}

// checkBlock checks that the block, its row and its report came together.
func (w *World) checkBlock(ctx context.Context, s Store) error {
	if w.blocked.key == (relay.DeliveryKey{}) {
		return nil
	}
	_, ds, err := s.Message(ctx, w.blocked.key.Message)
	if err != nil {
		return fmt.Errorf("the blocked message: %w", err)
	}
	state := len(ds[0].Waiting()) == 0
	_, err = s.Block(ctx, "1", "a@blocked.example")
	row := err == nil
	if err != nil && !errors.Is(err, events.ErrNoBlock) {
		return err
	}
	_, err = ReadBody(ctx, s, w.blocked.report)
	report := err == nil
	if err != nil && !errors.Is(err, relay.ErrNotFound) {
		return err
	}
	if state != row || state != report || w.blocked.told && !state {
		return fmt.Errorf("block told %t, but state %t, row %t, report %t", w.blocked.told, state, row, report)
	}
	return nil
}
