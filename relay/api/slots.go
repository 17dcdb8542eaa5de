package api

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tlsrelay/policy/account"
)

// slots bound the calls of one kind that wait for hosts of the caller's choosing: a
// host that says nothing keeps such a call under way for as long as it may take.
//
// An account has a few slots, and all accounts together have a number. It is the
// account of the key that counts, whomever the key acts for: a parent with ten
// thousand subusers has one share. When all slots are taken, the newcomer gets one
// from the account with the most, as long as that has more than the newcomer; else
// it gets one that is past its grace. So one account never keeps another out. Many
// accounts that act as one can make a call of another wait for a slot until one of
// theirs is past its grace.
type slots struct {
	perAccount int
	total      int
	grace      time.Duration // nobody's call is ended before, while no account has more than others

	gaveWay prometheus.Counter

	mu    sync.Mutex
	taken []*slot // the oldest first
}

// slot is one call under way.
type slot struct {
	account account.ID
	since   time.Time
	end     context.CancelCauseFunc
}

// What keeps a call from going on.
var (
	errAccountFull = errors.New("as many of these calls of this account are under way as may be")
	errAllFull     = errors.New("too many of these calls are under way")
	errGaveWay     = errors.New("the call took long and gave way to another account's")
)

// enter takes a slot for a call of an account, which leave gives back. The context
// ends with ctx, and with the cause errGaveWay when the slot is taken away.
func (s *slots) enter(ctx context.Context, who account.ID) (_ context.Context, leave func(), err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.count(who)
	if own >= s.perAccount {
		return nil, nil, errAccountFull
	}
	if len(s.taken) >= s.total {
		victim := s.givesWay(own+1, now)
		if victim == nil {
			return nil, nil, errAllFull
		}
		s.remove(victim)
		s.gaveWay.Inc()
		victim.end(errGaveWay)
	}
	ctx, end := context.WithCancelCause(ctx)
	mine := &slot{who, now, end}
	s.taken = append(s.taken, mine)
	return ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.remove(mine)
		end(nil)
	}, nil
}

// givesWay chooses the slot that goes for an account which then has n: the oldest of
// the account with the most. nil: no slot goes.
func (s *slots) givesWay(n int, now time.Time) *slot {
	var victim *slot
	most := 0
	for _, old := range s.taken {
		if k := s.count(old.account); k > most {
			victim, most = old, k
		}
	}
	if victim != nil && (most > n || now.Sub(victim.since) >= s.grace) {
		return victim
	}
	return nil
}

func (s *slots) count(who account.ID) (n int) {
	for _, t := range s.taken {
		if t.account == who {
			n++
		}
	}
	return n
}

func (s *slots) remove(which *slot) {
	s.taken = slices.DeleteFunc(s.taken, func(t *slot) bool { return t == which })
}

func (s *slots) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

// retrySlot is when a caller without a slot may try again.
const retrySlot = 5 * time.Second

// within makes a call of the key's account in a slot of its own.
func (s *server) within(r *request, of *slots, b bound, call func(context.Context) error) error {
	ctx, leave, err := of.enter(r.Context(), r.owner.ID)
	if err != nil {
		return s.noSlot(r, of, b, err)
	}
	defer leave()
	err = call(ctx)
	if errors.Is(context.Cause(ctx), errGaveWay) {
		return s.noSlot(r, of, b, errGaveWay)
	}
	return err
}

// noSlot is the fault of a call without a slot. Clients read when to come again in
// either of two headers.
func (s *server) noSlot(r *request, of *slots, b bound, why error) error {
	h := r.w.Header()
	h.Set("Retry-After", strconv.Itoa(int(retrySlot.Seconds())))
	h.Set("X-RateLimit-Limit", strconv.Itoa(of.perAccount))
	h.Set("X-RateLimit-Remaining", "0")
	h.Set("X-RateLimit-Reset", strconv.FormatInt(s.Now().Add(retrySlot).Unix(), 10))
	f := refused(http.StatusTooManyRequests)
	f.detail = why.Error()
	return s.atBound(b, f)
}
