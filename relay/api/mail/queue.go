package mail

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"strconv"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/api/rest"
)

// Guard is how the mass-violation guard stands.
type Guard struct {
	Holding bool `json:"holding"`
}

// Changed says how many deliveries an action changed.
type Changed struct {
	Changed int `json:"changed"`
}

const (
	// CountedMore bounds the count of rows behind a part of a list.
	CountedMore = 10_000
	// listed is how many rows one call lists unless told, and maxListed at most.
	listed    = 100
	maxListed = 100_000
)

// limitOf reads how many rows are asked for.
func limitOf(r *rest.Request) (int, error) {
	n, err := r.Number("limit", 0, 0, maxListed)
	if err != nil {
		err = rest.InvalidField("limit", "limit must be a whole number, at most "+strconv.Itoa(maxListed))
	}
	return cmp.Or(int(n), listed), err
}

// Overview counts what waits, by destination.
func (s Calls) Overview(r *rest.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	rows, more, err := s.Store.Overview(r.Context(), r.Now(), r.URL.Query().Get("after"), limit)
	if err != nil {
		return nil, err
	}
	var next url.Values
	if more > 0 {
		next = url.Values{"after": {rows[len(rows)-1].Destination}}
	}
	r.TellRemaining(more, next)
	return append([]relay.QueueRow{}, rows...), nil
}

// Queued lists what waits, message by message.
func (s Calls) Queued(r *rest.Request) (any, error) {
	q := r.URL.Query()
	sel, err := s.selection(r, target{
		All: true, Message: q.Get("message"), Destination: q.Get("destination"), Account: q.Get("account"),
	})
	if err != nil {
		return nil, err
	}
	if sel.Held, err = r.Bool("held"); err != nil {
		return nil, err
	}
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	o, err := r.Number("offset", 0, 0, rest.NoLimit)
	if err != nil {
		return nil, err
	}
	offset := int(o)
	list, err := s.Store.Queue(r.Context(), sel, offset, limit)
	if err != nil {
		return nil, err
	}
	more := 0
	if len(list) == limit {
		if more, err = s.Store.Count(r.Context(), sel, offset+limit, CountedMore); err != nil {
			return nil, err
		}
	}
	r.TellRemaining(more, url.Values{"offset": {strconv.Itoa(offset + limit)}})
	return append([]relay.Queued{}, list...), nil
}

// target is what an operator picks to act on: deliveries that match all that is set.
type target struct {
	All         bool
	Message     string
	Destination string
	Account     string
}

// String names what is picked.
func (t target) String() string { return cmp.Or(t.Message, t.Destination, t.Account, "all") }

// selection turns a target into what the store understands. A target that names
// nothing is refused: nobody drops a whole queue by leaving a word out.
func (s Calls) selection(r *rest.Request, t target) (sel relay.Selection, err error) {
	if t == (target{}) {
		return sel, rest.InvalidField("", "name a message, a destination or an account, or say all")
	}
	if t.Message != "" {
		if sel.Message, err = relay.ParseMessageID(t.Message); err != nil {
			return sel, rest.InvalidField("message", "not a message id")
		}
		if sel.Message == (relay.MessageID{}) {
			return sel, relay.ErrNotFound // where it stands for every message
		}
	}
	if t.Destination != "" {
		address, err := relay.ParseAddress("postmaster@"+t.Destination, true)
		if err != nil {
			return sel, rest.InvalidField("destination", "not a destination")
		}
		sel.Destination = address.Destination()
	}
	if t.Account != "" {
		found, err := rest.Find(r.Context(), s.Accounts, t.Account)
		if err != nil {
			return sel, err
		}
		sel.Account = found.ID
	}
	return sel, nil
}

// Act makes the call for one act on the queue.
func (s Calls) Act(act relay.Act) func(*rest.Request, *rest.Object) (any, error) {
	return func(r *rest.Request, o *rest.Object) (any, error) {
		var t target
		var reason string
		o.Bool("all", &t.All)
		o.Text("message", 64, &t.Message)
		o.Text("destination", 320, &t.Destination)
		o.Text("account", 320, &t.Account)
		o.Text("reason", 4096, &reason)
		if err := o.Err(); err != nil {
			return nil, err
		}
		sel, err := s.selection(r, t)
		if err != nil {
			return nil, err
		}
		var n int
		if act == relay.ActDrop {
			n, err = s.drop(r.Context(), sel, reason)
		} else if n, err = s.Store.Act(r.Context(), act, sel, r.Now()); n > 0 {
			s.Queue.Rescan()
		}
		r.Audit("queue "+string(act), t.String(), nil, Changed{n})
		return Changed{n}, err
	}
}

// Destinations lists the destination queues in memory.
func (s Calls) Destinations(r *rest.Request) (any, error) {
	limit, err := limitOf(r)
	if err != nil {
		return nil, err
	}
	some, more := s.Lanes(limit)
	r.TellRemaining(more, nil)
	return some, nil
}

// GetGuard says whether the mass-violation guard delays drops.
func (s Calls) GetGuard(*rest.Request) (any, error) { return Guard{s.Queue.GuardHolds()}, nil }

// ReleaseGuard lets drops go on.
func (s Calls) ReleaseGuard(r *rest.Request) (any, error) {
	s.Queue.ReleaseGuard()
	r.Audit("guard released", "", nil, nil)
	return s.GetGuard(r)
}

// takeLease is how long a delivery that is taken to be dropped stays ours. It waits
// for the commit of the drop only.
const takeLease = time.Minute

// drop gives up what is selected and was there when the drop began. It leaves the
// reports alone that it makes itself, which may match as well.
func (s Calls) drop(ctx context.Context, sel relay.Selection, reason string) (n int, err error) {
	words := "message dropped by the operator"
	if reason != "" {
		words += ": " + events.Printable(reason)
	}
	begun := time.Now()
	for again := true; again; {
		again = false
		for skip := 0; ; {
			list, err := s.Store.Queue(ctx, sel, skip, 100)
			if err != nil {
				return n, err
			}
			if len(list) == 0 {
				break
			}
			for _, item := range list {
				dropped := false
				if !item.Message.Accepted.After(begun) {
					if dropped, err = s.dropOne(ctx, item.Delivery.Key, words); err != nil {
						return n, err
					}
				}
				if dropped {
					n, again = n+1, true // what comes behind has moved up: look again
				} else {
					skip++
				}
			}
		}
	}
	return n, nil
}

// dropOne gives up one delivery, with its events and its report. false: it
// was finished in the meantime.
func (s Calls) dropOne(ctx context.Context, key relay.DeliveryKey, words string) (bool, error) {
	c, err := s.Store.Take(ctx, key, time.Now().Add(takeLease))
	if errors.Is(err, relay.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = s.Queue.Drop(ctx, c, words)
	}
	return err == nil, err
}
