package store

import (
	"bytes"
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// The outbox has one row for every event and every endpoint that wants it,
// written with the state that the event tells of. Rows are handed out in the
// order of their sequence numbers, and who reads them goes on above the last
// one. So a row must never come to light below one that has been handed out:
// numbers are given out before the batch is committed, and Rows stops below
// the lowest number whose batch is still on its way.

// tickets gives out sequence numbers and knows which are on their way.
type tickets struct {
	mu      sync.Mutex
	next    uint64 // the next number
	open    []*ticket
	durable uint64 // all rows below are on stable storage
	wake    func(endpoint string)
	shed    func(account string, events int, oldest time.Time)
}

// ticket is the claim of one batch on its numbers.
type ticket struct {
	first     uint64
	endpoints []string // with rows in the batch
	done      bool
}

// begin gives n numbers.
func (k *tickets) begin(n int) *ticket {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := &ticket{first: k.next}
	k.next += uint64(n)
	k.open = append(k.open, t)
	return t
}

// end says that the batch can be seen, or never will be, and wakes the
// endpoints whose rows can be handed out by that: its own and those of later
// batches that it held up, none while an earlier one is on its way. A nil t is
// none.
func (k *tickets) end(t *ticket) {
	if t == nil {
		return
	}
	k.mu.Lock()
	t.done = true
	var endpoints []string
	for len(k.open) > 0 && k.open[0].done {
		endpoints = append(endpoints, k.open[0].endpoints...)
		k.open = k.open[1:]
	}
	wake := k.wake
	k.mu.Unlock()
	if wake == nil {
		return
	}
	for _, id := range endpoints {
		wake(id)
	}
}

// limit is the number below which every row can be seen that ever will be.
func (k *tickets) limit() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.open) > 0 {
		return k.open[0].first
	}
	return k.next
}

// synced says that all rows below limit are on stable storage.
func (k *tickets) synced(limit uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.durable = max(k.durable, limit)
}

// isDurable reports whether the row of a number is on stable storage.
func (k *tickets) isDurable(seq uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return seq < k.durable
}

// resume makes sure that numbers go on above those in the database.
func (k *tickets) resume(next uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.next = max(k.next, next)
	k.durable = 0
}

// Wake is told the id of an endpoint whenever rows of it come to where Rows
// hands them out.
func (s *Store) Wake(f func(endpoint string)) {
	s.tickets.mu.Lock()
	defer s.tickets.mu.Unlock()
	s.tickets.wake = f
}

// Shed is told how many of an account's events were given up because more of them
// waited than may, and when the oldest happened. The function must not block.
func (s *Store) Shed(f func(account string, events int, oldest time.Time)) {
	s.tickets.mu.Lock()
	defer s.tickets.mu.Unlock()
	s.tickets.shed = f
}

// tell adds the rows of the events of a message to w, for every endpoint that
// wants them.
func (w *write) tell(m *relay.Message, evs []events.Event) {
	rows := w.s.tenants.Wanted(evs)
	if len(rows) == 0 {
		return
	}
	w.ticket = w.s.tickets.begin(len(rows))
	form := layout.RowFormOf(m, evs)
	for i, r := range rows {
		e := &evs[r.Event]
		if i == 0 || r.Event != rows[i-1].Event {
			*w.scratch = form.Append((*w.scratch)[:0], e)
		}
		key := layout.RowKey(r.Endpoint, w.ticket.first+uint64(i))
		// A batch of ours has no reason to refuse a key.
		_ = w.Set(key, *w.scratch)
		w.ticket.endpoint(r.Endpoint)
		w.boxed(r.Endpoint, len(key)+len(*w.scratch))
	}
}

// endpoint notes that the batch has a row for an endpoint.
func (t *ticket) endpoint(id string) {
	if len(t.endpoints) == 0 || t.endpoints[len(t.endpoints)-1] != id {
		t.endpoints = append(t.endpoints, id)
	}
}

// sentTo remembers below which number an endpoint has only deleted rows, which
// it would cost to step over.
type sentTo struct {
	mu sync.Mutex
	at map[string]uint64
}

func (t *sentTo) get(endpoint string) uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.at[endpoint]
}

// raise takes in that the rows from first to below end are gone. Where that
// leaves rows before them, they are still to be found.
func (t *sentTo) raise(endpoint string, first, end uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == nil {
		t.at = make(map[string]uint64)
	}
	if at := t.at[endpoint]; first <= at {
		t.at[endpoint] = max(at, end)
	}
}

// Pending lists the ids of endpoints with rows, those of deleted endpoints
// too.
func (s *Store) Pending(context.Context) ([]string, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer s.engine.Leave()
	var ids []string
	from, limit := []byte(layout.Outbox), layout.After([]byte(layout.Outbox))
	for from != nil {
		var key []byte
		err := db.Each(from, limit, func(k, _ []byte) (bool, error) {
			key = bytes.Clone(k)
			return false, nil
		})
		if err != nil || key == nil {
			return ids, err
		}
		id, _, err := layout.ParseRowKey(key)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
		from = layout.After(layout.RowsPrefix(id))
	}
	return ids, nil
}

// Rows gives the oldest rows of an endpoint within span whose state is on
// stable storage. Where some were committed without waiting for that, it waits
// now.
func (s *Store) Rows(_ context.Context, endpoint string, span webhook.Span, maxBytes int) ([]webhook.Row, error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer s.engine.Leave()
	limit := s.tickets.limit() // before the rows are read
	first, end := within(span, limit)
	if first = max(first, s.sent.get(endpoint)); first >= end {
		return nil, nil
	}
	var rows []webhook.Row
	size := 0
	read := rowReader{s: s, db: db}
	err = db.Each(layout.RowKey(endpoint, first), layout.RowKey(endpoint, end), func(key, v []byte) (bool, error) {
		_, seq, err := layout.ParseRowKey(key)
		if err != nil {
			return false, err
		}
		r, err := read.row(v)
		if err != nil {
			return false, err
		}
		if size += r.size(); size > maxBytes && len(rows) > 0 {
			return false, nil
		}
		rows = append(rows, webhook.Row{Seq: seq, At: r.At, Object: r.object()})
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	if n := len(rows); n > 0 && !s.tickets.isDurable(rows[n-1].Seq) {
		if err := db.Sync(); err != nil {
			return nil, err
		}
		s.tickets.synced(limit)
	}
	return rows, nil
}

// within gives the rows of a span, from first to below end, as far as there can
// be any.
func within(span webhook.Span, limit uint64) (first, end uint64) {
	if span.Last < limit {
		limit = span.Last + 1
	}
	return span.First, limit
}

// Remove removes the rows within span. A crash may bring some back, which are
// then sent again with the ids they had.
func (s *Store) Remove(_ context.Context, endpoint string, span webhook.Span) error {
	db, err := s.engine.Enter()
	if err != nil {
		return err
	}
	defer s.engine.Leave()
	first, end := within(span, s.tickets.limit())
	_, err = s.removeRows(db, endpoint, first, end, math.MaxInt64)
	return err
}

// removed is rows that are gone.
type removed struct {
	rows   int
	octets int64
	oldest time.Time // when the event of the first happened
}

// removeRows removes the rows of an endpoint from first to below end, or the first
// of them that come to so many octets.
func (s *Store) removeRows(db *engine.DB, endpoint string, first, end uint64, octets int64) (gone removed, err error) {
	s.removing.Lock() // what one counts, no other does
	defer s.removing.Unlock()
	lower := max(first, s.sent.get(endpoint))
	if lower >= end {
		return gone, nil
	}
	err = db.Each(layout.RowKey(endpoint, lower), layout.RowKey(endpoint, end), func(key, v []byte) (bool, error) {
		_, seq, err := layout.ParseRowKey(key)
		if err != nil {
			return false, err
		}
		if gone.octets >= octets {
			end = seq
			return false, nil
		}
		if gone.rows == 0 {
			r, _ := layout.ParseRow(v)
			gone.oldest = r.At
		}
		gone.rows++
		gone.octets += int64(len(key) + len(v))
		return true, nil
	})
	if err != nil || gone.rows == 0 {
		return gone, err
	}
	b := db.NewBatch()
	if err := b.DeleteRange(layout.RowKey(endpoint, lower), layout.RowKey(endpoint, end), nil); err != nil {
		return gone, err
	}
	if err := db.Apply(b, false); err != nil {
		return gone, err
	}
	s.countRows(endpoint, -gone.rows, -gone.octets)
	s.sent.raise(endpoint, first, end)
	s.engine.SyncSoon()
	return gone, nil
}

// resumeOutbox finds the highest sequence number in use.
func (s *Store) resumeOutbox(db *engine.DB) error {
	it, err := db.NewIter([]byte(layout.Outbox), layout.After([]byte(layout.Outbox)))
	if err != nil {
		return db.ReadError(err)
	}
	next := uint64(1)
	for ok := it.First(); ok; {
		id, _, err := layout.ParseRowKey(it.Key())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		end := layout.After(layout.RowsPrefix(id))
		if it.SeekLT(end) {
			_, seq, err := layout.ParseRowKey(it.Key())
			if err != nil {
				return errors.Join(err, it.Close())
			}
			next = max(next, seq+1)
		}
		ok = it.SeekGE(end)
	}
	s.tickets.resume(next)
	return it.Close()
}
