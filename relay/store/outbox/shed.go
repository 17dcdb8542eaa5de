package outbox

import (
	"context"
	"errors"
	"math"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// Each account may have so much waiting in the outbox, all its endpoints together. Past
// the bound its oldest rows are given up: an endpoint that refuses events must not take
// the disk from all others, and mail is never refused because of its events.

// DefaultBound is some 1,200,000 events of an account, of 400 octets each: what
// fourteen a second come to while their endpoint is away for a day. Compressed they
// take a quarter of it on the disk.
const DefaultBound = 512 << 20

// Rows are given up until a sixteenth of the bound is free again, in small parts of
// it, each of the endpoint that has the oldest: so all give up what is as old.
const (
	shedSlack = 16
	shedParts = 128
)

// Run gives up events of accounts that have too many, until ctx ends.
func (o *Outbox) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.overfull:
		}
		for _, account := range o.fullAccounts() {
			if err := o.shedAccount(ctx, account); err != nil && ctx.Err() == nil {
				o.log.Error("events past the bound of an account could not be given up", zap.String("account", account), zap.Error(err))
			}
		}
	}
}

// fullAccounts gives the accounts that have come to have too many.
func (o *Outbox) fullAccounts() []string {
	if o.engine.Ready() != nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts.takeFull()
}

// shedAccount gives up the oldest events of an account, until it has room again.
func (o *Outbox) shedAccount(ctx context.Context, account string) error {
	var all removed
	defer func() { o.tellShed(account, all) }()
	for ctx.Err() == nil {
		gone, err := o.shedPart(ctx, account)
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

// signal wakes the reader of c; it never blocks.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// shedPart gives up some of an account's oldest events, none when it has room.
func (o *Outbox) shedPart(ctx context.Context, account string) (gone removed, err error) {
	points, err := o.tenants.Endpoints(ctx, account)
	if err != nil {
		return gone, err
	}
	db, err := o.engine.Enter()
	if err != nil {
		return gone, err
	}
	defer o.engine.Leave()
	o.mu.Lock()
	excess, limit := o.counts.excess(account), o.numbers.limit()
	o.mu.Unlock()
	if excess <= 0 {
		return gone, nil
	}
	oldest, first := "", uint64(math.MaxUint64)
	for _, p := range points {
		seq, ok, err := o.firstRow(db, p.ID, limit)
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
	return o.removeRows(db, oldest, 0, limit, min(excess, o.bound/shedParts))
}

// firstRow gives the number of the oldest row of an endpoint below limit.
func (o *Outbox) firstRow(db *engine.DB, endpoint string, limit uint64) (seq uint64, ok bool, err error) {
	from := o.sentTo(endpoint)
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

func (o *Outbox) tellShed(account string, all removed) {
	o.mu.Lock()
	tell := o.shed
	o.mu.Unlock()
	if tell != nil && all.rows > 0 {
		tell(account, all.rows, all.oldest)
	}
}

// Count adds what was in the outbox when an instance of the database was opened.
func (o *Outbox) Count(ctx context.Context, db *engine.DB, at pebble.Reader) error {
	var run box
	var endpoint string
	n := 0
	add := func() {
		if run.rows > 0 && o.add(endpoint, run.rows, run.octets) {
			signal(o.overfull)
		}
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

// add takes in that an endpoint has more rows, or less, and reports whether its account
// has too many by that.
func (o *Outbox) add(endpoint string, rows int, octets int64) (full bool) {
	o.tenants.HoldEndpoints()
	defer o.tenants.ReleaseEndpoints()
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count(endpoint, rows, octets)
}

// count is add for who holds the endpoints and mu. The rows of an endpoint that is gone
// count for nothing: Forget drops afterwards what there is of them.
func (o *Outbox) count(endpoint string, rows int, octets int64) (full bool) {
	account, ok := o.tenants.Held(endpoint)
	return ok && o.counts.Add(account, endpoint, rows, octets)
}

// Forget drops what is counted for an endpoint that is gone.
func (o *Outbox) Forget(endpoint string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.counts.drop(endpoint)
}

// Waiting gives how many rows wait, and their octets.
func (o *Outbox) Waiting() (rows int, octets int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts.total.rows, o.counts.total.octets
}

// Bound is how many octets of rows of one account may wait.
func (o *Outbox) Bound() int64 { return o.bound }

// String lists what is counted.
func (o *Outbox) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts.String()
}
