package admin

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// Queue is the running queue, as far as operators reach into it. relay/queue
// implements it.
type Queue interface {
	// Rescan has everything that became due by the store's hand tried now.
	Rescan()
	// Drop gives up a delivery taken from the store.
	Drop(ctx context.Context, c relay.Claimed, words string) error
	// GuardHolds reports whether the mass-violation guard puts drops off.
	GuardHolds() bool
	// ReleaseGuard lets drops go on.
	ReleaseGuard()
}

// Guard is how the mass-violation guard stands.
type Guard struct {
	Holding bool `json:"holding"`
}

// QueueAction picks deliveries to act on. One of the first four must be set.
type QueueAction struct {
	All         bool   `json:"all,omitempty"`
	Message     string `json:"message,omitempty"`
	Destination string `json:"destination,omitempty"`
	Account     string `json:"account,omitempty"`
	// Reason is told to the senders of what is dropped.
	Reason string `json:"reason,omitempty"`
}

// Changed says how many deliveries an action changed.
type Changed struct {
	Changed int `json:"changed"`
}

// Evidence is a message with its deliveries, queued and finished.
type Evidence struct {
	Message    relay.Message    `json:"message"`
	Deliveries []relay.Delivery `json:"deliveries"`
}

const (
	// CountedMore is how far is counted what is behind a part of a list.
	CountedMore = 10_000
	// maxListed is how many rows one call lists, and listed how many it does
	// unless told.
	maxListed = 100_000
	listed    = 100
)

func (s *server) queueOverview(r *http.Request) (any, error) {
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	rows, more, err := s.Store.Overview(r.Context(), time.Now(), q.Get("after"), limit)
	if err != nil {
		return nil, err
	}
	p := part{rows: append([]relay.QueueRow{}, rows...), more: more}
	if more > 0 {
		p.next = url.Values{"after": {rows[len(rows)-1].Destination}}
	}
	return p, nil
}

// limitOf reads how many rows are asked for.
func limitOf(q url.Values) (int, error) {
	n, err := number(q.Get("limit"))
	if err != nil || n > maxListed {
		return 0, badRequest("limit must be a whole number, at most " + strconv.Itoa(maxListed))
	}
	return cmp.Or(n, listed), nil
}

func (s *server) queueMessages(r *http.Request) (any, error) {
	q := r.URL.Query()
	sel, err := s.selection(r, QueueAction{
		All: true, Message: q.Get("message"), Destination: q.Get("destination"), Account: q.Get("account"),
	})
	if err != nil {
		return nil, err
	}
	sel.Held = q.Get("held") == "true"
	offset, err := number(q.Get("offset"))
	if err != nil {
		return nil, badRequest("offset must be a whole number")
	}
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	list, err := s.Store.Queue(r.Context(), sel, offset, limit)
	if err != nil {
		return nil, err
	}
	p := part{rows: append([]relay.Queued{}, list...)}
	if len(list) == limit {
		p.more, err = s.Store.Count(r.Context(), sel, offset+limit, CountedMore)
		p.next = url.Values{"offset": {strconv.Itoa(offset + limit)}}
	}
	return p, err
}

func number(s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if n < 0 {
		err = strconv.ErrRange
	}
	return n, err
}

func (s *server) showMessage(r *http.Request) (any, error) {
	id, err := relay.ParseMessageID(r.PathValue("id"))
	if err != nil {
		return nil, badRequest("not a message id")
	}
	m, ds, err := s.Store.Message(r.Context(), id)
	for i, d := range ds {
		if d.Last != nil {
			last := *d.Last
			last.Hosts = relay.Explained(last.Hosts)
			ds[i].Last = &last
		}
	}
	return Evidence{m, ds}, err
}

// selection turns an action into what the store understands. An action that
// names nothing is refused: nobody drops a whole queue by leaving a word out.
func (s *server) selection(r *http.Request, a QueueAction) (sel relay.Selection, err error) {
	if !a.All && a.Message == "" && a.Destination == "" && a.Account == "" {
		return sel, badRequest("name a message, a destination or an account, or say all")
	}
	if a.Message != "" {
		if sel.Message, err = relay.ParseMessageID(a.Message); err != nil {
			return sel, badRequest("not a message id")
		}
		if sel.Message == (relay.MessageID{}) {
			return sel, relay.ErrNotFound // where it stands for every message
		}
	}
	if a.Destination != "" {
		address, err := relay.ParseAddress("postmaster@"+a.Destination, true)
		if err != nil {
			return sel, badRequest("not a destination")
		}
		sel.Destination = address.Destination()
	}
	if a.Account != "" {
		found, err := FindAccount(r, s.Accounts, a.Account)
		if err != nil {
			return sel, err
		}
		sel.Account = found.ID
	}
	return sel, nil
}

// act makes the call for one act on the queue.
func (s *server) act(act relay.Act) call {
	return func(r *http.Request) (any, error) {
		var in QueueAction
		if err := read(r, &in); err != nil {
			return nil, err
		}
		sel, err := s.selection(r, in)
		if err != nil {
			return nil, err
		}
		var n int
		if act == relay.ActDrop {
			n, err = s.drop(r.Context(), sel, in.Reason)
		} else if n, err = s.Store.Act(r.Context(), act, sel, time.Now()); n > 0 {
			s.Queue.Rescan()
		}
		s.Log.Info("audit", zap.String("change", "queue "+string(act)), zap.String("by", "operator"),
			zap.String("message", in.Message), zap.String("destination", in.Destination),
			zap.String("account", in.Account), zap.Int("deliveries", n))
		return Changed{n}, err
	}
}

func (s *server) showGuard(*http.Request) (any, error) { return Guard{s.Queue.GuardHolds()}, nil }

func (s *server) releaseGuard(*http.Request) (any, error) {
	s.Queue.ReleaseGuard()
	s.Log.Info("audit", zap.String("change", "guard released"), zap.String("by", "operator"))
	return Guard{s.Queue.GuardHolds()}, nil
}

// takeLease is how long a delivery taken to be dropped stays ours; it waits
// for the commit of the drop and for nothing else.
const takeLease = time.Minute

// drop gives up what is selected and was there when the drop began: not the
// reports it makes itself, which may match as well.
func (s *server) drop(ctx context.Context, sel relay.Selection, reason string) (n int, err error) {
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
func (s *server) dropOne(ctx context.Context, key relay.DeliveryKey, words string) (bool, error) {
	c, err := s.Store.Take(ctx, key, time.Now().Add(takeLease))
	if errors.Is(err, relay.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = s.Queue.Drop(ctx, c, words)
	}
	return err == nil, err
}
