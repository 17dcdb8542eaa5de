package store

import (
	"context"
	"errors"
	"math"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// What waits in the outbox is bounded by account, all its endpoints together: past
// the bound the oldest rows are given up, for one that refuses to hear must not take
// the disk from all others, and mail is never refused for what has been told by it.

// defaultMaxEvents is some 1,200,000 events of an account, of 400 octets each: what
// fourteen a second come to while their endpoint is away for a day. Compressed they
// take a quarter of it on the disk.
const defaultMaxEvents = 512 << 20

// Rows are given up until a sixteenth of the bound is free again, in small parts of
// it, each of the endpoint that has the oldest: so all give up what is as old.
const (
	shedSlack = 16
	shedParts = 128
)

// boxes counts what waits in the outbox, by endpoint and by account, in octets of
// keys and values before they are compressed. Like tally it is kept in memory, and
// what was there at the opening is added in the background.
type boxes struct {
	mu       sync.Mutex
	of       map[string]*box // by endpoint
	accounts map[string]int64
	total    box
	bound    int64
	full     map[string]struct{} // accounts past the bound
}

// box is what waits for one endpoint.
type box struct {
	account string
	rows    int
	octets  int64
}

// reset forgets all, for another instance of the database.
func (b *boxes) reset(bound int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.of, b.accounts, b.full = make(map[string]*box), make(map[string]int64), make(map[string]struct{})
	b.total, b.bound = box{}, bound
}

// add takes in that an endpoint has more rows, or less, and reports whether its
// account has too many by that.
func (b *boxes) add(account, endpoint string, rows int, octets int64) (full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.of[endpoint]
	if at == nil {
		at = &box{account: account}
		b.of[endpoint] = at
	}
	b.change(endpoint, at, rows, octets)
	if octets > 0 && b.bound > 0 && b.accounts[at.account] > b.bound {
		b.full[at.account] = struct{}{}
		return true
	}
	return false
}

func (b *boxes) change(endpoint string, at *box, rows int, octets int64) {
	at.rows += rows
	at.octets += octets
	b.total.rows += rows
	b.total.octets += octets
	if b.accounts[at.account] += octets; b.accounts[at.account] == 0 {
		delete(b.accounts, at.account)
	}
	if at.rows == 0 && at.octets == 0 {
		delete(b.of, endpoint)
	}
}

// drop forgets an endpoint that is gone.
func (b *boxes) drop(endpoint string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := b.of[endpoint]; at != nil {
		b.change(endpoint, at, -at.rows, -at.octets)
	}
}

// sum gives what waits for all.
func (b *boxes) sum() (rows int, octets int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total.rows, b.total.octets
}

// excess is how many octets of an account are to be given up, so that there is room
// again for as long as it takes.
func (b *boxes) excess(account string) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.accounts[account] - (b.bound - b.bound/shedSlack)
}

// takeFull gives the accounts that came past the bound since it was last called.
func (b *boxes) takeFull() (accounts []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for account := range b.full {
		accounts = append(accounts, account)
	}
	clear(b.full)
	return accounts
}

// countOutbox adds what was in the outbox at the opening.
func (s *Store) countOutbox(ctx context.Context, db *engine.DB, at pebble.Reader) error {
	var run box
	var endpoint string
	n := 0
	add := func() {
		if run.rows == 0 {
			return
		}
		s.countRows(endpoint, run.rows, run.octets)
	}
	err := db.EachIn(at, []byte(layout.Outbox), layout.After([]byte(layout.Outbox)), func(key, v []byte) (bool, error) {
		id, _, err := layout.ParseRowKey(key)
		if err != nil {
			return false, err
		}
		if id != endpoint {
			add()
			run, endpoint = box{}, id
		}
		run.rows++
		run.octets += int64(len(key) + len(v))
		if n++; n%4096 == 0 {
			err = errors.Join(ctx.Err(), db.Failure())
		}
		return err == nil, err
	})
	add()
	return err
}

// countRows takes in that an endpoint has more rows, or less. The rows of one that is
// gone count for nothing: whoever deletes it drops what there is of them afterwards.
func (s *Store) countRows(endpoint string, rows int, octets int64) {
	s.tenants.HoldEndpoints()
	defer s.tenants.ReleaseEndpoints()
	if owner, ok := s.tenants.Held(endpoint); ok && s.boxes.add(owner, endpoint, rows, octets) {
		signal(s.overfull)
	}
}

// shedLoop gives up events of accounts that have too many.
func (s *Store) shedLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.overfull:
		}
		for _, account := range s.fullAccounts() {
			if err := s.shedAccount(ctx, account); err != nil && ctx.Err() == nil {
				s.log.Error("events past the bound of an account could not be given up", zap.String("account", account), zap.Error(err))
			}
		}
	}
}

func (s *Store) fullAccounts() []string {
	if s.engine.Ready() != nil {
		return nil
	}
	return s.boxes.takeFull()
}

// shedAccount gives up the oldest events of an account, until it has room again.
func (s *Store) shedAccount(ctx context.Context, account string) error {
	var all removed
	defer func() { s.tellShed(account, all) }()
	for ctx.Err() == nil {
		gone, err := s.shedPart(ctx, account)
		if gone.rows == 0 {
			return err
		}
		if all.rows == 0 {
			all.oldest = gone.oldest
		}
		all.rows += gone.rows
		if err != nil {
			return err
		}
	}
	return nil
}

// signal wakes whoever waits for c; it never blocks.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// shedPart gives up some of an account's oldest events, none when it has room.
func (s *Store) shedPart(ctx context.Context, account string) (gone removed, err error) {
	points, err := s.tenants.Endpoints(ctx, account)
	if err != nil {
		return gone, err
	}
	db, err := s.engine.Enter()
	if err != nil {
		return gone, err
	}
	defer s.engine.Leave()
	excess := s.boxes.excess(account)
	if excess <= 0 {
		return gone, nil
	}
	limit := s.tickets.limit()
	oldest, first := "", uint64(math.MaxUint64)
	for _, p := range points {
		seq, ok, err := s.firstRow(db, p.ID, limit)
		if err != nil {
			return gone, err
		}
		if ok && seq < first {
			oldest, first = p.ID, seq
		}
	}
	if oldest == "" {
		return gone, nil
	}
	return s.removeRows(db, oldest, 0, limit, min(excess, s.o.MaxEvents/shedParts))
}

// firstRow gives the number of the oldest row of an endpoint below limit.
func (s *Store) firstRow(db *engine.DB, endpoint string, limit uint64) (seq uint64, ok bool, err error) {
	from := s.sent.get(endpoint)
	if from >= limit {
		return 0, false, nil
	}
	err = db.Each(layout.RowKey(endpoint, from), layout.RowKey(endpoint, limit), func(key, _ []byte) (bool, error) {
		_, seq, err = layout.ParseRowKey(key)
		ok = err == nil
		return false, err
	})
	return seq, ok, err
}

func (s *Store) tellShed(account string, all removed) {
	s.tickets.mu.Lock()
	tell := s.tickets.shed
	s.tickets.mu.Unlock()
	if tell != nil && all.rows > 0 {
		tell(account, all.rows, all.oldest)
	}
}

// boxed notes that w has a row for an endpoint.
func (w *write) boxed(endpoint string, octets int) {
	for i := range w.boxes {
		if r := &w.boxes[i]; r.endpoint == endpoint {
			r.rows++
			r.octets += int64(octets)
			return
		}
	}
	w.boxes = append(w.boxes, boxMove{endpoint, 1, int64(octets)})
}

// boxMove is rows that a batch adds for an endpoint.
type boxMove struct {
	endpoint string
	rows     int
	octets   int64
}

// noteBoxes takes in what a batch has added.
func (w *write) noteBoxes() {
	for _, r := range w.boxes {
		w.s.countRows(r.endpoint, r.rows, r.octets)
	}
}
