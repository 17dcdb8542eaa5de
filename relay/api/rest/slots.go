package rest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tlsrelay/policy/account"
)

// Slots bound the calls of one kind that wait for hosts of the caller's choosing: a
// host that says nothing keeps such a call under way for as long as it may take.
//
// An account has PerAccount slots, and all accounts together have Total. A call counts
// for the account of its key, whomever the key acts for: a parent with ten thousand
// subusers has one share. When all slots are taken, the newcomer gets one from the
// account with the most, as long as that has more than the newcomer; else it gets one
// that is past its grace. So one account never keeps another out. Many accounts that
// act as one can make a call of another wait for a slot until one of theirs is past
// its grace.
type Slots struct {
	PerAccount int
	Total      int
	Grace      time.Duration // a call ends before it only for an account with fewer
	Bound      string        // by which refusals are counted
	GaveWay    prometheus.Counter

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
func (s *Slots) enter(ctx context.Context, who account.ID) (_ context.Context, leave func(), err error) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.count(who)
	if own >= s.PerAccount {
		return nil, nil, errAccountFull
	}
	if len(s.taken) >= s.Total {
		victim := s.givesWay(own+1, now)
		if victim == nil {
			return nil, nil, errAllFull
		}
		s.remove(victim)
		s.GaveWay.Inc()
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
func (s *Slots) givesWay(n int, now time.Time) *slot {
	var victim *slot
	most := 0
	for _, old := range s.taken {
		if k := s.count(old.account); k > most {
			victim, most = old, k
		}
	}
	if victim != nil && (most > n || now.Sub(victim.since) >= s.Grace) {
		return victim
	}
	return nil
}

func (s *Slots) count(who account.ID) (n int) {
	for _, t := range s.taken {
		if t.account == who {
			n++
		}
	}
	return n
}

func (s *Slots) remove(which *slot) {
	s.taken = slices.DeleteFunc(s.taken, func(t *slot) bool { return t == which })
}

// Len is how many calls are under way.
func (s *Slots) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

// retrySlot is when a caller without a slot may try again.
const retrySlot = 5 * time.Second

// Within makes a call for the account of the request's key in a slot of its own. A
// call without one, or one that lost it, gets 429; clients read when to come again in
// either of two headers.
func (s *Slots) Within(r *Request, call func(context.Context) error) error {
	ctx, leave, err := s.enter(r.Context(), r.Owner.ID)
	if err == nil {
		defer leave()
		err = call(ctx)
		if !errors.Is(context.Cause(ctx), errGaveWay) {
			return err
		}
		err = errGaveWay
	}
	return comeAgain(r, s.PerAccount, s.Bound, err)
}

// comeAgain is the fault of a call that finds as many under way as may be, and why.
func comeAgain(r *Request, perAccount int, bound string, why error) *Fault {
	now := r.Now()
	Allowance{Limit: perAccount, Reset: now.Add(retrySlot).Unix(), Exceeded: true}.Tell(r.W.Header(), now)
	f := FaultOf(http.StatusTooManyRequests)
	f.detail = why.Error()
	return f.At(bound)
}
