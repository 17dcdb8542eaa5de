package mail

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// An overview counts at least leastCounted deliveries of each destination; of
// those with more it counts on until it has counted maxCounted in all.
const (
	maxCounted   = 250_000
	leastCounted = 1000
)

// Overview gives the queue by destination. It reads the part of the indexes that
// is asked for, and for the reason one delivery of each destination and account.
func (s *Store) Overview(ctx context.Context, now time.Time, after string, limit int) (rows []relay.QueueRow, more int, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, 0, err
	}
	defer s.engine.Leave()
	o := overview{db: db, now: now, age: relay.AgeBuckets()}
	defer func() { err = errors.Join(err, o.close()) }()
	for i, prefix := range []string{layout.Ready, layout.Held} {
		if err := o.open(i, prefix, after); err != nil {
			return nil, 0, err
		}
	}
	for range cmp.Or(max(limit, 0), defaultListed) {
		row, found, err := o.next(ctx)
		if err != nil {
			return nil, 0, err
		}
		if !found {
			return rows, 0, nil
		}
		rows = append(rows, row)
	}
	return rows, s.tally.Behind(rows[len(rows)-1].Destination), nil
}

// overview reads both indexes side by side, destination by destination.
type overview struct {
	db      *engine.DB
	now     time.Time
	age     []time.Duration
	indexes [2]index
	counted int
}

// index is one of them, at the entry that is read next.
type index struct {
	prefix string
	it     *pebble.Iterator
	at     layout.IndexEntry
	valid  bool
}

func (o *overview) open(i int, prefix, behind string) (err error) {
	x := &o.indexes[i]
	lower := []byte(prefix)
	if behind != "" {
		lower = layout.After(layout.DestinationPrefix(prefix, behind))
	}
	x.prefix = prefix
	if x.it, err = o.db.NewIter(lower, layout.After([]byte(prefix))); err != nil {
		return o.db.ReadError(err)
	}
	return x.read(x.it.First())
}

// read takes in the entry that the iterator has come to, if it has.
func (x *index) read(ok bool) (err error) {
	if x.valid = ok; ok {
		x.at, err = layout.ParseIndexKey(x.it.Key())
	}
	return err
}

func (o *overview) close() error {
	var errs []error
	for _, x := range o.indexes {
		if x.it == nil {
			continue
		}
		if err := x.it.Close(); err != nil {
			errs = append(errs, o.db.ReadError(err))
		}
	}
	return errors.Join(errs...)
}

// next counts the next destination.
func (o *overview) next(ctx context.Context) (row relay.QueueRow, found bool, err error) {
	for _, x := range o.indexes {
		if name := x.at.Lane.Destination; x.valid && (!found || name < row.Destination) {
			row.Destination, found = name, true
		}
	}
	row.Ages = make([]int, len(o.age)+1)
	for i := range o.indexes {
		if err := o.scan(ctx, &o.indexes[i], &row); err != nil {
			return row, false, err
		}
	}
	return row, found, nil
}

// scan counts what one index has of the row's destination.
func (o *overview) scan(ctx context.Context, x *index, row *relay.QueueRow) error {
	for x.valid && x.at.Lane.Destination == row.Destination {
		if err := ctx.Err(); err != nil {
			return err
		}
		ok := false
		if row.Waiting+row.Held >= leastCounted && o.counted >= maxCounted {
			row.More = true
			ok = x.it.SeekGE(layout.After(layout.DestinationPrefix(x.prefix, row.Destination)))
		} else {
			o.add(row, x.at, x.prefix == layout.Held)
			o.counted++
			ok = x.it.Next()
		}
		if err := x.read(ok); err != nil {
			return err
		}
	}
	return nil
}

func (o *overview) add(row *relay.QueueRow, e layout.IndexEntry, held bool) {
	accepted := e.Key.Message.Time()
	bucket := 0
	for bucket < len(o.age) && o.now.Sub(accepted) >= o.age[bucket] {
		bucket++
	}
	row.Ages[bucket]++
	if row.Oldest.IsZero() || accepted.Before(row.Oldest) {
		row.Oldest = accepted
	}
	first := row.Waiting+row.Held == 0
	if held {
		row.Held++
	} else {
		row.Waiting++
		// The index is by account within a queue, so an earlier one may follow.
		if row.Due.IsZero() || e.Due.Before(row.Due) {
			row.Due, first = e.Due, true
		}
	}
	if first {
		o.explain(row, e)
	}
}

// explain takes the reason from a delivery. Every account of the destination
// asks for at most one to be read: those before it in its queue are due first.
func (o *overview) explain(row *relay.QueueRow, e layout.IndexEntry) {
	v, _, err := waiting(o.db, e.Key)
	if err != nil {
		return
	}
	if d, _, err := layout.DecodeDelivery(v); err == nil {
		reason, reply := d.LastReason()
		row.Reason, row.Reply = string(reason), reply
	}
}
