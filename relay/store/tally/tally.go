package tally

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
)

// Bounds are what an account may have waiting; 0: no bound.
type Bounds struct {
	Recipients, Destinations int
}

// Tally counts what is queued: in all, by destination and by account. Its methods are
// safe for concurrent use.
type Tally struct {
	bounds  Bounds
	log     *zap.Logger
	refused struct{ recipients, destinations, disk atomic.Uint64 } // messages, by bound

	messages, waiting, held atomic.Int64

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

// Delta is what one batch changes.
type Delta struct {
	Messages, Waiting, Held int64 // deliveries in the ready index, and in that of the held ones
	moves                   []move
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

// Move notes that an account has more index entries for a destination, or less. What
// only changes its place in the index comes to nothing.
func (d *Delta) Move(who account.ID, destination string, entries, recipients int) {
	if last := len(d.moves) - 1; last >= 0 && d.moves[last].destination == destination && d.moves[last].who == who {
		m := &d.moves[last]
		m.entries += entries
		m.recipients += recipients
		if *m == (move{who: who, destination: destination}) {
			d.moves = d.moves[:last]
		}
		return
	}
	d.moves = append(d.moves, move{who: who, destination: destination, entries: entries, recipients: recipients})
}

// Weigh notes a change of what an account's waiting bodies take.
func (d *Delta) Weigh(who account.ID, octets int64) {
	if last := len(d.moves) - 1; last >= 0 && d.moves[last].who == who {
		d.moves[last].octets += octets
		return
	}
	d.moves = append(d.moves, move{who: who, octets: octets})
}

// New makes a tally of nothing. An account that is at a bound is told of in the log.
func New(b Bounds, log *zap.Logger) *Tally {
	t := &Tally{bounds: b, log: log}
	t.Reset(new(engine.Splits))
	return t
}

// Reset forgets all, for another instance of the database.
func (t *Tally) Reset(splits *engine.Splits) {
	t.messages.Store(0)
	t.waiting.Store(0)
	t.held.Store(0)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.destinations, t.accounts, t.splits = make(map[string]*lot), make(map[account.ID]*load), splits
	t.octets = 0
}

// Add takes in what a batch has changed.
func (t *Tally) Add(d *Delta) {
	t.messages.Add(d.Messages)
	t.waiting.Add(d.Waiting)
	t.held.Add(d.Held)
	if len(d.moves) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range d.moves {
		t.add(m)
	}
}

// Depth gives how many messages and deliveries are queued, these in the ready index
// and in that of the held ones.
func (t *Tally) Depth() (messages, waiting, held int64) {
	return t.messages.Load(), t.waiting.Load(), t.held.Load()
}

// Bounds gives what an account may have waiting.
func (t *Tally) Bounds() Bounds { return t.bounds }

// Refused gives how many messages each bound has refused.
func (t *Tally) Refused() (recipients, destinations, disk uint64) {
	return t.refused.recipients.Load(), t.refused.destinations.Load(), t.refused.disk.Load()
}

// add takes in one move. The caller holds mu.
func (t *Tally) add(m move) {
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

// Behind gives how many destinations whose names come behind one have anything
// waiting.
func (t *Tally) Behind(destination string) (n int) {
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

// Admit says whether an account may have a message for n more recipients in ds; none
// of either: any message at all. relay.ErrAccountFull: it may not. Others that are on
// their way at the same time are not counted, so that it may come to have so much more.
func (t *Tally) Admit(who account.ID, ds []relay.Delivery, n int) error {
	b := t.bounds
	if b.Recipients <= 0 && b.Destinations <= 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.accounts[who]
	if l == nil {
		l = &load{}
	}
	switch {
	case b.Recipients > 0 && l.recipients+max(n, 1) > b.Recipients:
		t.refused.recipients.Add(1)
	case b.Destinations > 0 && t.exceeds(b.Destinations, l, ds):
		t.refused.destinations.Add(1)
	default:
		return nil
	}
	return t.full(l, who)
}

// full tells the operator, now and then, that an account is at a bound. The caller holds
// mu.
func (t *Tally) full(l *load, who account.ID) error {
	if now := time.Now(); now.Sub(l.told) >= time.Minute {
		l.told = now
		t.log.Warn("an account has as much mail waiting as it may, and more is refused", zap.String("account", string(who)),
			zap.Int("recipients", l.recipients), zap.Int("destinations", len(l.entries)), zap.Int64("octets", l.octets))
	}
	return relay.ErrAccountFull
}

// exceeds reports whether ds would give an account more than so many destinations.
// One that has as many may still write to those it has.
func (t *Tally) exceeds(most int, l *load, ds []relay.Delivery) bool {
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

// String lists what waits, by destination and by account.
func (t *Tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(t.destinations)) {
		fmt.Fprintf(&b, "%s %d; ", name, t.destinations[name].entries)
	}
	for _, who := range slices.Sorted(maps.Keys(t.accounts)) {
		l := t.accounts[who]
		if len(l.entries) == 0 && l.recipients == 0 {
			continue
		}
		fmt.Fprintf(&b, "account %s %d:", who, l.recipients)
		for _, name := range slices.Sorted(maps.Keys(t.destinations)) {
			if n := l.entries[t.destinations[name]]; n != 0 {
				fmt.Fprintf(&b, " %s %d", name, n)
			}
		}
		b.WriteString("; ")
	}
	return b.String()
}
