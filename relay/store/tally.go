package store

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// tally counts what waits, held deliveries included: by destination, and by
// account, which may have so much and no more. It is kept in memory: nothing is
// read for it when a message comes, and the index says all of it again at the
// next opening (engine.count). Until that is done there seems to be less than
// there is, and what leaves meanwhile may make it negative.
type tally struct {
	mu           sync.Mutex
	destinations map[string]*lot
	accounts     map[account.ID]*load
	octets       int64          // of all waiting bodies
	splits       *engine.Splits // where tables of the database end follows from it
}

// lot is what waits for one destination.
type lot struct {
	destination string
	entries     int
	loads       int // that have a part of it
}

// load is what an account has waiting. It stays when that is nothing, as it is
// between two messages.
type load struct {
	recipients int
	octets     int64 // of its messages' bodies
	entries    map[*lot]int
	told       time.Time // when the log said last that it is at a bound
}

// move is a change of what an account has waiting, for one destination or, where
// that is "", of the octets alone.
type move struct {
	who         account.ID
	destination string
	entries     int
	recipients  int
	octets      int64
}

// reset forgets all, for another instance of the database.
func (t *tally) reset(splits *engine.Splits) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.destinations, t.accounts, t.splits = make(map[string]*lot), make(map[account.ID]*load), splits
	t.octets = 0
}

func (t *tally) add(m move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.accounts[m.who]
	if l == nil {
		l = &load{entries: make(map[*lot]int, 1)}
		t.accounts[m.who] = l
	}
	l.octets += m.octets
	t.octets += m.octets
	if m.destination == "" {
		return
	}
	at := t.destinations[m.destination]
	if at == nil {
		at = &lot{destination: m.destination}
		t.destinations[m.destination] = at
	}
	was, had := at.entries, len(l.entries)
	at.entries += m.entries
	l.recipients += m.recipients
	if n := l.entries[at] + m.entries; n != 0 {
		l.entries[at] = n
	} else {
		delete(l.entries, at)
	}
	at.loads += len(l.entries) - had
	if at.loads == 0 {
		delete(t.destinations, m.destination)
	}
	t.splits.Note(m.destination, was, at.entries)
}

// waiting gives how many deliveries wait for a destination.
func (t *tally) waiting(destination string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at := t.destinations[destination]; at != nil {
		return at.entries
	}
	return 0
}

// behind gives how many destinations whose names come behind one have anything
// waiting.
func (t *tally) behind(destination string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	looked := 0
	for name := range t.destinations {
		if name > destination {
			n++
		}
		if looked++; looked%1024 == 0 {
			t.mu.Unlock() // every message comes by here
			t.mu.Lock()
		}
	}
	return n
}

// count gives how many destinations have anything waiting.
func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.destinations)
}

// bounds are what an account may have waiting, and how often one refused a
// message; 0: no bound.
type bounds struct {
	log                                    *zap.Logger
	recipients, destinations               int
	refusedRecipients, refusedDestinations atomic.Uint64
	refusedDisk                            atomic.Uint64
}

// admits says whether an account may have a message for n more recipients in ds;
// none of either: any message at all. The others on their way at the same time
// are not counted, so that it may come to have so much more.
func (t *tally) admits(b *bounds, who account.ID, ds []relay.Delivery, n int) error {
	if b.recipients <= 0 && b.destinations <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.accounts[who]
	if l == nil {
		l = &load{}
	}
	switch {
	case b.recipients > 0 && l.recipients+max(n, 1) > b.recipients:
		b.refusedRecipients.Add(1)
	case b.destinations > 0 && t.exceeds(b.destinations, l, ds):
		b.refusedDestinations.Add(1)
	default:
		return nil
	}
	return l.full(b, who)
}

// full tells the operator, now and then, that an account is at a bound.
func (l *load) full(b *bounds, who account.ID) error {
	if now := time.Now(); now.Sub(l.told) >= time.Minute {
		l.told = now
		b.log.Warn("an account has as much mail waiting as it may, and more is refused", zap.String("account", string(who)),
			zap.Int("recipients", l.recipients), zap.Int("destinations", len(l.entries)), zap.Int64("octets", l.octets))
	}
	return relay.ErrAccountFull
}

// weight gives what the waiting bodies of an account take, and those of all.
func (t *tally) weight(who account.ID) (own, all int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.accounts[who]; l != nil {
		own = max(l.octets, 0)
	}
	return own, max(t.octets, own, 1)
}

// refuse says that the disk has no room for more of an account's mail, and some for
// others'.
func (t *tally) refuse(b *bounds, who account.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b.refusedDisk.Add(1)
	l := t.accounts[who]
	if l == nil {
		l = &load{}
	}
	return l.full(b, who)
}

// exceeds reports whether ds would give an account more than so many destinations.
// One that has as many may still write to those it has.
func (t *tally) exceeds(most int, l *load, ds []relay.Delivery) bool {
	if len(l.entries)+len(ds) <= most {
		return false
	}
	n := len(l.entries)
	for i := range ds {
		if at := t.destinations[ds[i].Lane.Destination]; at == nil || l.entries[at] == 0 {
			n++
		}
	}
	return n > max(most, len(l.entries))
}

// Admit says whether an account may have another message now, as far as is known
// without the message; relay.ErrAccountFull: it may not. It is cheap.
func (s *Store) Admit(who account.ID) error {
	if s.engine.Ready() != nil {
		return nil // which others tell, and better
	}
	if err := s.tally.admits(&s.bounds, who, nil, 0); err != nil {
		return err
	}
	room, err := s.reserve(who, 0)
	room.End()
	if errors.Is(err, relay.ErrAccountFull) {
		return err
	}
	return nil // that there is no room at all others tell, and better
}

// countIndex counts the deliveries of one index, and the messages whose first
// queued delivery is among them.
func (s *Store) countIndex(ctx context.Context, db *engine.DB, snap pebble.Reader, prefix string, to *atomic.Int64) error {
	it, err := snap.NewIter(&pebble.IterOptions{LowerBound: []byte(prefix), UpperBound: layout.After([]byte(prefix))})
	if err != nil {
		return err
	}
	var run move // of one destination and account
	var n, messages int64
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var e layout.IndexEntry
		if e, err = layout.ParseIndexKey(it.Key()); err != nil {
			break
		}
		if e.Lane.Destination != run.destination || e.Who != run.who {
			s.tally.add(run)
			run = move{who: e.Who, destination: e.Lane.Destination}
		}
		var first bool
		if first, err = isFirst(snap, e.Key); first {
			messages++
			run.octets += sizeOf(snap, e.Key.Message)
		}
		run.entries++
		run.recipients += recipientsOf(snap, it, e.Key)
		if n++; n%4096 == 0 && err == nil {
			err = cmp.Or(ctx.Err(), db.Failure())
		}
	}
	s.tally.add(run)
	to.Add(n)
	s.depth.messages.Add(messages)
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
		return 0 // whoever wants the delivery will say so
	}
	defer closer.Close()
	d, _, _ := layout.DecodeDelivery(v)
	return layout.WaitingRecipients(&d)
}

// sizeOf gives the octets of a message's body.
func sizeOf(r pebble.Reader, id relay.MessageID) int64 {
	v, closer, err := r.Get(layout.MessageKey(id))
	if err != nil {
		return 0 // whoever wants the message will say so
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
		queued := isQueued(v)
		if err := closer.Close(); err != nil || queued {
			return false, err
		}
	}
	return true, nil
}
