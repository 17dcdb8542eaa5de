package store

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
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
	octets       int64 // of all waiting bodies
	cuts         cuts
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

func (t *tally) add(m move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.destinations == nil {
		t.destinations, t.accounts = make(map[string]*lot), make(map[account.ID]*load)
	}
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
	t.cuts.note(m.destination, was, at.entries)
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
	en, err := s.enter()
	if err != nil {
		return nil // which others tell, and better
	}
	defer s.leave()
	if err := en.tally.admits(&s.bounds, who, nil, 0); err != nil {
		return err
	}
	room, err := s.reserveIn(en, who, 0)
	room.end()
	if errors.Is(err, relay.ErrAccountFull) {
		return err
	}
	return nil // that there is no room at all others tell, and better
}
