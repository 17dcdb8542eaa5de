package queue

import (
	"context"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
)

// acceptance is one message on its way through Accept: what the loop is asked
// and later handed.
type acceptance struct {
	message relay.Message
	ds      []relay.Delivery
	// granted says which deliveries have a place in their lane: they are
	// claimed by being stored, and the fast path writes no more than that.
	granted []bool
	any     bool
	stored  bool
	answer  chan struct{}
}

// Accept splits a message by destination and makes it durable: when it
// returns nil the message may be answered for. It ends the draft, whatever it
// returns. Any error is taken for a temporary one, for none is the client's fault.
func (q *Queue) Accept(ctx context.Context, m relay.Message, rcpts []relay.Recipient, body relay.Draft) error {
	classes, err := q.classes(ctx, m, rcpts)
	if err != nil {
		body.Discard()
		return err
	}
	if m.Size == 0 {
		m.Size = body.Size()
	}
	ds := relay.Split(m, rcpts, func(destination string) policy.Class { return classes[destination] })
	m.Deliveries = len(ds)
	a := &acceptance{message: m, ds: ds}
	s := q.ask(a)
	evs := m.Processed(rcpts)
	if err := q.store.Accept(ctx, m, ds, body, evs); err != nil {
		q.hand(s, a)
		return err
	}
	a.stored = true
	for i := range evs {
		q.tell(&evs[i]) // before the loop can have anything delivered
	}
	q.hand(s, a)
	return nil
}

// classes gives the policy class of every destination.
func (q *Queue) classes(ctx context.Context, m relay.Message, rcpts []relay.Recipient) (map[string]policy.Class, error) {
	classes := make(map[string]policy.Class, 1)
	for _, r := range rcpts {
		destination := r.Address.Destination()
		if _, ok := classes[destination]; ok {
			continue
		}
		sender, err := q.sender(ctx, m, destination)
		if err != nil {
			return nil, err
		}
		classes[destination] = m.Demands(sender).Class()
	}
	return classes, nil
}

// ask asks the loop for places and claims what was granted. Without a loop
// there are none: everything waits in the store for the next Run.
func (q *Queue) ask(a *acceptance) *scheduler {
	a.granted = make([]bool, len(a.ds))
	s := q.loop.Load()
	if s == nil {
		return nil
	}
	a.answer = make(chan struct{}, 1)
	select {
	case s.asks <- a:
		<-a.answer
	case <-s.gone:
		return nil
	}
	lease := time.Now().Add(q.o.Schedule.Delay(1))
	for i := range a.ds {
		if a.granted[i] {
			a.ds[i].Attempts, a.ds[i].Due = 1, lease
		}
	}
	return s
}

// hand tells the loop how it came out.
func (q *Queue) hand(s *scheduler, a *acceptance) {
	if s == nil {
		// One that has begun since may have scanned the store too early.
		s = q.loop.Load()
	}
	if s == nil || !a.stored && !a.any {
		return
	}
	select {
	case s.hands <- a:
	case <-s.gone:
		if !a.stored {
			return
		}
		// The loop ended in between; the next one takes over at once.
		c := &crew{Queue: q, commits: context.Background()}
		for i, d := range a.ds {
			if a.granted[i] {
				c.release(relay.Claimed{Message: a.message, Delivery: d})
			}
		}
	}
}

// reserve answers an ask: a place is granted where the lane has room, the account
// has nothing older waiting there, and memory in all and its own share permit.
func (s *scheduler) reserve(a *acceptance, now time.Time) {
	for i, d := range a.ds {
		if s.draining {
			break
		}
		b := s.sub(d.Lane, d.Account, now)
		if s.reservable(b, now) {
			s.take(b, 0, 1)
			s.q.inHand.add(d.Key)
			a.granted[i], a.any = true, true
		}
	}
	a.answer <- struct{}{}
}

func (s *scheduler) reservable(b *sub, now time.Time) bool {
	l := b.lane
	if l.pace.resting(now) || l.crowded() || l.room(s.lim) <= 0 || b.claiming || b.place != nowhere || b.due(now) {
		return false
	}
	memory := s.inMemory()
	return memory.permits(rankOf(l.standing, l.busy+l.held), 2*s.q.o.MaxConnections) && s.mayHold(b, memory)
}

// handed takes over what Accept stored, or takes back what it was promised.
func (s *scheduler) handed(a *acceptance, now time.Time) {
	var back []*job
	for i, d := range a.ds {
		b := s.sub(d.Lane, d.Account, now)
		if a.granted[i] {
			s.take(b, 0, -1)
		}
		switch {
		case !a.stored:
			s.q.inHand.remove(d.Key)
			s.place(b.lane, now)
		case a.granted[i] && s.draining:
			back = append(back, &job{message: a.message, delivery: d})
		case a.granted[i]:
			s.hold(b, relay.Claimed{Message: a.message, Delivery: d}, now)
		case !s.draining:
			s.mark(b, d.Due, now)
		}
	}
	s.giveBack(back)
}
