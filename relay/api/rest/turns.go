package rest

import (
	"context"
	"errors"
	"sync"
	"time"

	"tlsrelay/policy/account"
)

// Turns bound the calls that keep the processor busy for long, or hold much memory:
// those on lists, which are as long as the account likes. A few run at a time, of an
// account and of all. The others wait, before they read their body, and are refused
// when that takes too long. As with Slots, it is the account of the key that counts.
type Turns struct {
	perAccount int
	wait       time.Duration
	bound      string        // by which refusals are counted
	all        chan struct{} // as many as run

	mu sync.Mutex
	of map[account.ID]*queue
}

// queue is the calls of one account.
type queue struct {
	calls   int           // that run or wait
	running chan struct{} // as many as run, or wait for those of others alone
}

// NewTurns makes turns for so many calls of an account, and of all, at a time. A call
// that waits longer is refused, which is counted by the name of the bound.
func NewTurns(perAccount, total int, wait time.Duration, bound string) *Turns {
	return &Turns{
		perAccount: perAccount, wait: wait, bound: bound,
		all: make(chan struct{}, total), of: make(map[account.ID]*queue),
	}
}

var errNoTurn = errors.New("other calls of this kind took too long")

// take waits for the turn of a call of an account, which leave ends.
func (t *Turns) take(ctx context.Context, who account.ID) (leave func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	q := t.join(who)
	if !enters(ctx, q.running) {
		t.part(who, q)
		return nil, errNoTurn
	}
	if !enters(ctx, t.all) {
		<-q.running
		t.part(who, q)
		return nil, errNoTurn
	}
	return func() {
		<-t.all
		<-q.running
		t.part(who, q)
	}, nil
}

func enters(ctx context.Context, c chan struct{}) bool {
	select {
	case c <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t *Turns) join(who account.ID) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.of[who]
	if q == nil {
		q = &queue{running: make(chan struct{}, t.perAccount)}
		t.of[who] = q
	}
	q.calls++
	return q
}

func (t *Turns) part(who account.ID, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.calls--; q.calls == 0 {
		delete(t.of, who)
	}
}

// In makes a call when it is its turn, or answers 429.
func (t *Turns) In(call Call) Call {
	return func(r *Request) (any, error) {
		leave, err := t.take(r.Context(), r.Owner.ID)
		if err != nil {
			return nil, comeAgain(r, t.perAccount, t.bound, err)
		}
		defer leave()
		return call(r)
	}
}
