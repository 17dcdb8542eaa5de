package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// backlogChunk is how many backlogs are gathered before they are yielded: the
// store is not entered while somebody else's code runs.
const backlogChunk = 1024

// Backlogs calls yield for every lane and account with anything queued. It
// seeks from one to the next, so its cost is theirs and not that of the
// deliveries in them.
func (s *Store) Backlogs(ctx context.Context, yield func(relay.Backlog) bool) error {
	from := []byte(layout.Ready)
	for from != nil {
		var chunk []relay.Backlog
		var err error
		if chunk, from, err = s.backlogs(ctx, from); err != nil {
			return err
		}
		for _, b := range chunk {
			if !yield(b) {
				return nil
			}
		}
	}
	return nil
}

// backlogs gathers some from key from on; next is where it stopped, nil at
// the end.
func (s *Store) backlogs(ctx context.Context, from []byte) (got []relay.Backlog, next []byte, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, nil, err
	}
	defer s.engine.Leave()
	it, err := db.NewIter(from, layout.After([]byte(layout.Ready)))
	if err != nil {
		return nil, nil, db.ReadError(err)
	}
	for ok := it.First(); ok; ok = it.SeekGE(next) {
		e, err := layout.ParseIndexKey(it.Key())
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, nil, errors.Join(err, it.Close())
		}
		got = append(got, relay.Backlog{Lane: e.Lane, Account: e.Who, Due: e.Due})
		next = layout.After(bytes.Clone(layout.IndexHead(it.Key())))
		if len(got) == backlogChunk {
			return got, next, it.Close()
		}
	}
	if err := it.Close(); err != nil {
		return nil, nil, db.ReadError(err)
	}
	return got, nil, nil
}

// Claim takes up to n deliveries that are due and not in hand, oldest first, and
// records the attempt on each.
//
// The record is not waited for: it is on its way to the disk, next in the
// loop of Run, while the caller still looks up the host. It is there to keep
// a crash loop from storming a receiver, not to keep a promise; when it is
// lost, an attempt goes uncounted.
func (s *Store) Claim(ctx context.Context, lane relay.Lane, who account.ID, now time.Time, n int, lease func(attempts int) time.Time, inHand func(relay.DeliveryKey) bool) (got []relay.Claimed, next time.Time, err error) {
	db, err := s.engine.Enter()
	if err != nil {
		return nil, next, err
	}
	defer s.engine.Leave()
	prefix := layout.QueuePrefix(layout.Ready, lane, who)
	low := s.lows.begin(prefix)
	var first []byte // the first entry left behind

	err = db.Each(low.from, layout.After(prefix), func(key, _ []byte) (bool, error) {
		e, err := layout.ParseIndexKey(key)
		if err != nil {
			return false, err
		}
		if e.Due.After(now) || len(got) >= n {
			if next = e.Due; first == nil {
				first = bytes.Clone(key)
			}
			return false, nil
		}
		if inHand != nil && inHand(e.Key) {
			if first == nil {
				first = bytes.Clone(key)
			}
			return true, ctx.Err()
		}
		c, err := s.claim(db, e, lease)
		if err != nil {
			s.unclaimable(e, err)
			if failed := db.Failure(); failed != nil {
				return false, failed
			}
			if first == nil {
				first = bytes.Clone(key)
			}
			return ctx.Err() == nil, ctx.Err()
		}
		if c != nil {
			got = append(got, *c)
		}
		return true, ctx.Err()
	})
	s.lows.end(prefix, low, first, err == nil)
	if len(got) > 0 {
		s.engine.SyncNow()
		err = nil // what has been claimed is the caller's
	}
	return got, next, err
}

// unclaimable reports an index entry that leads nowhere; the others of its
// lane go on.
func (s *Store) unclaimable(e layout.IndexEntry, err error) {
	s.log.Error("a queued delivery cannot be claimed", zap.Stringer("delivery", e.Key), zap.Error(err))
}

// claim takes one delivery, nil if it went another way since it was seen.
func (s *Store) claim(db *engine.DB, e layout.IndexEntry, lease func(attempts int) time.Time) (*relay.Claimed, error) {
	defer s.lockMessage(e.Key.Message)()
	v, st, err := waiting(db, e.Key)
	if errors.Is(err, relay.ErrNotFound) {
		return nil, nil
	}
	if err != nil || st.Held || layout.TimeBits(st.Due) != layout.TimeBits(e.Due) {
		return nil, err
	}
	st.Attempts++
	return s.reclaim(db, v, st, lease(st.Attempts))
}

// reclaim gives the delivery recorded in v the attempts of st and a lease.
func (s *Store) reclaim(db *engine.DB, v []byte, st layout.State, lease time.Time) (*relay.Claimed, error) {
	d, was, err := layout.DecodeDelivery(v)
	if err != nil {
		return nil, err
	}
	m, err := layout.ReadMessage(db, d.Key.Message)
	if err != nil {
		return nil, err
	}
	w := s.newWrite(db)
	defer w.close()
	st.Due = lease
	d.Attempts, d.Due = st.Attempts, lease
	err = errors.Join(
		w.unindex(d, was),
		w.index(d),
		w.Set(layout.DeliveryKey(d.Key), layout.WithState(v, st)),
	)
	if err != nil {
		return nil, err
	}
	w.claimed = append(w.claimed, layout.IndexEntry{Key: d.Key, Due: lease})
	if err := w.commit(false); err != nil {
		return nil, err
	}
	return &relay.Claimed{Message: m, Delivery: d}, nil
}

// waiting reads the record of a queued delivery; relay.ErrNotFound when there
// is none, or it has finished.
func waiting(db *engine.DB, k relay.DeliveryKey) (v []byte, st layout.State, err error) {
	v, found, err := db.Get(layout.DeliveryKey(k))
	if found {
		st, err = layout.DecodeState(v)
	}
	return v, st, stillQueued(k, found, st, err)
}

// standing reads the state of a queued delivery, as waiting does, and no more of
// its record than that.
func standing(db *engine.DB, k relay.DeliveryKey) (st layout.State, err error) {
	found, err := db.Read(layout.DeliveryKey(k), func(v []byte) (err error) {
		st, err = layout.DecodeState(v)
		return err
	})
	return st, stillQueued(k, found, st, err)
}

// stillQueued is the error of having read the state of a delivery: err, or
// relay.ErrNotFound when it is not queued.
func stillQueued(k relay.DeliveryKey, found bool, st layout.State, err error) error {
	if err == nil && (!found || st.Done) {
		return fmt.Errorf("%w: delivery %s", relay.ErrNotFound, k)
	}
	return err
}

// queues reports whether a delivery of a message is queued that counts.
func queues(db *engine.DB, id relay.MessageID, counts func(relay.DeliveryKey) bool) (found bool, err error) {
	err = db.EachPrefix(layout.DeliveriesPrefix(id), func(key, v []byte) (bool, error) {
		k, err := layout.ParseDeliveryKey(key)
		found = err == nil && counts(k) && layout.IsQueued(v)
		return err == nil && !found, err
	})
	return found, err
}

// flight knows the deliveries that somebody is at work on, and until when at
// the latest. It is lost in a restart, as their workers are.
type flight struct {
	mu  sync.Mutex
	due map[relay.DeliveryKey]time.Time
}

func (f *flight) add(k relay.DeliveryKey, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.due == nil {
		f.due = make(map[relay.DeliveryKey]time.Time)
	}
	f.due[k] = until
}

func (f *flight) drop(k relay.DeliveryKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.due, k)
}

// end drops k unless another lease than the one until then is on it.
func (f *flight) end(k relay.DeliveryKey, until time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.due[k].Equal(until) {
		delete(f.due, k)
	}
}

// is reports whether the last claim of k in this process is the one until then.
func (f *flight) is(k relay.DeliveryKey, until time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	due, ok := f.due[k]
	return ok && layout.TimeBits(due) == layout.TimeBits(until)
}

func (f *flight) has(k relay.DeliveryKey, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	until, ok := f.due[k]
	return ok && now.Before(until)
}

// lows remembers for a lane and account where its index begins. A queue that
// is consumed at one end leaves deleted keys there, which the database steps
// over one by one until a compaction has removed them; a busy lane would do
// so on every Claim.
type lows struct {
	mu sync.Mutex
	at map[string]*low
}

// low is where to begin: no entry lies before from. added is the lowest entry
// put in since the scan in progress began.
type low struct {
	from, added []byte
	scans       int
}

// maxLows bounds the memory. Whoever is forgotten begins at the start again.
const maxLows = 1 << 14

// begin starts a scan of the entries with this prefix.
func (l *lows) begin(prefix []byte) low {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.at[string(prefix)]
	if e == nil {
		if l.at == nil {
			l.at = make(map[string]*low)
		}
		for k, old := range l.at {
			if len(l.at) < maxLows {
				break
			}
			if old.scans == 0 {
				delete(l.at, k)
			}
		}
		e = &low{from: bytes.Clone(prefix)}
		l.at[string(prefix)] = e
	}
	if e.scans == 0 {
		e.added = nil
	}
	e.scans++
	return *e
}

// end notes that the scan begun as was found nothing before first; nil:
// nothing at all. Only a lone scan that went well proves that.
func (l *lows) end(prefix []byte, was low, first []byte, well bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.at[string(prefix)]
	e.scans--
	if !well || e.scans > 0 || was.scans > 1 {
		return
	}
	if first == nil {
		first = layout.After(prefix)
	}
	e.from = lower(first, e.added)
}

// forget begins all anew.
func (l *lows) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at = nil
}

// lower notes a new entry. It is called after the entry can be seen, so that
// a scan either saw it or hears of it.
func (l *lows) lower(key []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.at[string(layout.IndexHead(key))]; e != nil {
		e.from = lower(e.from, key)
		e.added = lower(key, e.added)
	}
}

// lower gives the lower of a and b; a nil b is none.
func lower(a, b []byte) []byte {
	if b != nil && bytes.Compare(b, a) < 0 {
		return b
	}
	return a
}
