package outbox

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
	"tlsrelay/relay/store/tenants"
)

// Outbox has the events that wait for webhooks. Its methods are safe for concurrent use.
type Outbox struct {
	engine   *engine.Engine
	tenants  *tenants.Tenants
	log      *zap.Logger
	bound    int64         // octets of one account
	overfull chan struct{} // an account has too many events waiting

	removing sync.Mutex // serialises those who remove rows

	mu      sync.Mutex
	numbers numbers
	counts  Counts
	// sent is the number below which an endpoint has only deleted rows, which it would
	// cost to step over.
	sent map[string]uint64
	wake func(endpoint string)
	shed func(account string, events int, oldest time.Time)
}

// New makes the room. bound is how many octets of events an account may have waiting;
// 0: as many as DefaultBound.
func New(e *engine.Engine, t *tenants.Tenants, bound int64, log *zap.Logger) *Outbox {
	return &Outbox{engine: e, tenants: t, bound: cmp.Or(bound, DefaultBound), log: log, overfull: make(chan struct{}, 1)}
}

// Recover finds the highest sequence number in use, and begins to count.
func (o *Outbox) Recover(db *engine.DB) error {
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
	o.mu.Lock()
	defer o.mu.Unlock()
	o.numbers.resume(next)
	o.counts.Reset(o.bound)
	o.sent = make(map[string]uint64) // a removal may have been lost
	return it.Close()
}

// Told is the rows that one batch adds. The zero Told is none.
type Told struct {
	of     *Outbox
	ticket *ticket
	more   []more
}

// more is the rows that a batch adds for one endpoint.
type more struct {
	endpoint string
	rows     int
	octets   int64
}

// Tell adds the rows of the events of message m to a batch, for every endpoint that wants
// them. Rows are encoded in scratch; the batch copies what it is given. The caller calls
// End when the batch is committed or given up.
func (o *Outbox) Tell(b tenants.Batch, scratch *[]byte, m *relay.Message, evs []events.Event) (t Told) {
	var few [4]tenants.Wanted
	rows := o.tenants.AppendWanted(few[:0], evs)
	if len(rows) == 0 {
		return t
	}
	o.mu.Lock()
	t = Told{of: o, ticket: o.numbers.begin(len(rows))}
	o.mu.Unlock()
	form := layout.RowFormOf(m, evs)
	for i, r := range rows {
		e := &evs[r.Event]
		if i == 0 || r.Event != rows[i-1].Event {
			*scratch = form.Append((*scratch)[:0], e)
		}
		key := layout.RowKey(r.Endpoint, t.ticket.first+uint64(i))
		// A batch of ours has no reason to refuse a key.
		_ = b.Set(key, *scratch)
		t.ticket.endpoint(r.Endpoint)
		t.add(r.Endpoint, len(key)+len(*scratch))
	}
	return t
}

// add notes a row for an endpoint.
func (t *Told) add(endpoint string, octets int) {
	for i := range t.more {
		if r := &t.more[i]; r.endpoint == endpoint {
			r.rows++
			r.octets += int64(octets)
			return
		}
	}
	t.more = append(t.more, more{endpoint, 1, int64(octets)})
}

// End says that the batch can be seen, or never will be. The endpoints whose rows can be
// handed out by that are woken. Only the first call counts.
func (t *Told) End(committed bool) {
	if t.ticket == nil {
		return
	}
	o, full := t.of, false
	o.tenants.HoldEndpoints()
	o.mu.Lock()
	endpoints := o.numbers.end(t.ticket)
	t.ticket = nil
	if committed {
		for _, r := range t.more {
			full = o.count(r.endpoint, r.rows, r.octets) || full
		}
	}
	wake := o.wake
	o.mu.Unlock()
	o.tenants.ReleaseEndpoints()
	if full {
		signal(o.overfull)
	}
	if wake == nil {
		return
	}
	for _, id := range endpoints {
		wake(id)
	}
}

// Wake is told the id of an endpoint whenever rows of it come to where Rows
// hands them out.
func (o *Outbox) Wake(f func(endpoint string)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wake = f
}

// Shed is told how many of an account's events were given up because more of them
// waited than may, and when the oldest happened. The function must not block.
func (o *Outbox) Shed(f func(account string, events int, oldest time.Time)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shed = f
}

// Pending lists the ids of endpoints with rows, those of deleted endpoints
// too.
func (o *Outbox) Pending(context.Context) ([]string, error) {
	db, err := o.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer o.engine.Leave()
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
func (o *Outbox) Rows(_ context.Context, endpoint string, span webhook.Span, maxBytes int) ([]webhook.Row, error) {
	db, err := o.engine.Enter()
	if err != nil {
		return nil, err
	}
	defer o.engine.Leave()
	limit := o.limit() // before the rows are read
	first, end := within(span, limit)
	if first = max(first, o.sentTo(endpoint)); first >= end {
		return nil, nil
	}
	var rows []webhook.Row
	size := 0
	read := rowReader{log: o.log, db: db}
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
	if n := len(rows); n > 0 && !o.isDurable(rows[n-1].Seq) {
		if err := db.Sync(); err != nil {
			return nil, err
		}
		o.synced(limit)
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
func (o *Outbox) Remove(_ context.Context, endpoint string, span webhook.Span) error {
	db, err := o.engine.Enter()
	if err != nil {
		return err
	}
	defer o.engine.Leave()
	first, end := within(span, o.limit())
	_, err = o.removeRows(db, endpoint, first, end, math.MaxInt64)
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
func (o *Outbox) removeRows(db *engine.DB, endpoint string, first, end uint64, octets int64) (gone removed, err error) {
	o.removing.Lock() // what one counts, no other does
	defer o.removing.Unlock()
	lower := max(first, o.sentTo(endpoint))
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
	o.add(endpoint, -gone.rows, -gone.octets)
	o.gone(endpoint, first, end)
	o.engine.SyncSoon()
	return gone, nil
}

// gone takes in that the rows from first to below end are removed. Where that leaves
// rows before them, they are still to be found.
func (o *Outbox) gone(endpoint string, first, end uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at := o.sent[endpoint]; first <= at {
		o.sent[endpoint] = max(at, end)
	}
}

// sentTo gives the number below which an endpoint has no rows.
func (o *Outbox) sentTo(endpoint string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sent[endpoint]
}

func (o *Outbox) limit() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.numbers.limit()
}

// synced says that all rows below limit are on stable storage.
func (o *Outbox) synced(limit uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.numbers.durable = max(o.numbers.durable, limit)
}

// isDurable reports whether the row of a number is on stable storage.
func (o *Outbox) isDurable(seq uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return seq < o.numbers.durable
}
