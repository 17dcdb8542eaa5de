// From a 250 to the block event, 2 of 10: this file splits a message by destination,
// and has it stored before the 250. Next: relay/queue/attempt/attempt.go.

package queue

import (
	"context"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/queue/attempt"
)

// acceptance is one message on its way through Accept. Accept sends it to the loop
// (scheduler.go) twice: first to ask for places, then to say whether the message was
// stored. A place is room for one delivery in the window of its destination queue.
type acceptance struct {
	message    relay.Message
	deliveries []relay.Delivery
	// promised says which deliveries have a place. They are stored as claimed already,
	// which saves the write of a claim: that is the fast path.
	promised []bool
	any      bool          // one of promised
	stored   bool          // the store has the message
	answer   chan struct{} // gets a token when promised is filled in
}

// Accept splits a message by destination and makes it durable: when it returns nil,
// submission may say 250. It ends the draft, whatever it returns. Any error is temporary,
// for none is the client's fault.
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
	a := &acceptance{message: m, deliveries: ds}
	s := q.askForPlaces(a)
	evs := m.Processed(rcpts)
	if err := q.store.Accept(ctx, m, ds, body, evs); err != nil {
		q.handOver(s, a)
		return err
	}
	a.stored = true
	for i := range evs {
		q.tell(&evs[i]) // before the loop can have anything delivered
	}
	q.handOver(s, a)
	return nil
}

// classes gives the policy class of every destination. The class only chooses the queue,
// so that the blocks of one account do not delay the mail of another. What is demanded is
// asked again at each attempt.
func (q *Queue) classes(ctx context.Context, m relay.Message, rcpts []relay.Recipient) (map[string]policy.Class, error) {
	classes := make(map[string]policy.Class, 1)
	for _, r := range rcpts {
		destination := r.Address.Destination()
		if _, ok := classes[destination]; ok {
			continue
		}
		class, err := q.maker.Class(ctx, m, destination)
		if err != nil {
			return nil, err
		}
		classes[destination] = class
	}
	return classes, nil
}

// askForPlaces asks the loop for places and claims what was promised. Without a
// loop there are none: everything waits in the store for the next Run. To the store, a
// delivery with Attempts 1 is claimed until its Due (relay.Store.Accept).
func (q *Queue) askForPlaces(a *acceptance) *scheduler {
	a.promised = make([]bool, len(a.deliveries))
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
	for i := range a.deliveries {
		if a.promised[i] {
			a.deliveries[i].Attempts, a.deliveries[i].Due = 1, lease
		}
	}
	return s
}

// handOver tells the loop whether the message was stored.
func (q *Queue) handOver(s *scheduler, a *acceptance) {
	if s == nil {
		// A loop that began meanwhile may have scanned the store too early.
		s = q.loop.Load()
	}
	if s == nil || !a.stored && !a.any {
		return
	}
	select {
	case s.accepted <- a:
	case <-s.gone:
		if !a.stored {
			return
		}
		// The loop ended meanwhile. With the claims given back, the next loop finds
		// the deliveries due.
		for i, d := range a.deliveries {
			if a.promised[i] {
				q.maker.Release(relay.Claimed{Message: a.message, Delivery: d})
			}
		}
	}
}

// promise answers askForPlaces.
func (s *scheduler) promise(a *acceptance, now time.Time) {
	for i, d := range a.deliveries {
		if s.draining {
			break
		}
		aq := s.accountQueue(d.Lane, d.Account, now)
		if s.mayPromise(aq, now) {
			s.count(aq, 0, 1)
			s.inHand.add(d.Key)
			a.promised[i], a.any = true, true
		}
	}
	a.answer <- struct{}{}
}

// mayPromise reports whether the destination queue has room, the account has
// nothing older waiting there, and the memory and the account's quota allow one
// more.
func (s *scheduler) mayPromise(aq *accountQueue, now time.Time) bool {
	dq := aq.dest
	if dq.window.CoolingOff(now) || dq.isCrowded() || dq.room(s.limits) <= 0 || aq.claiming || aq.waitsFor != waitsForNothing || aq.isDue(now) {
		return false
	}
	memory := s.inMemory()
	return memory.FreeFor(dq.memoryRank(), 2*s.o.MaxConnections) && s.underQuota(aq, memory)
}

// takeAccepted takes over what Accept stored, or takes back what it was promised. A
// promised delivery is ready: a worker makes its attempt (attempt/attempt.go). The others
// wait in the store until claim.go fetches them.
func (s *scheduler) takeAccepted(a *acceptance, now time.Time) {
	var back []*job
	for i, d := range a.deliveries {
		aq := s.accountQueue(d.Lane, d.Account, now)
		if a.promised[i] {
			s.count(aq, 0, -1)
		}
		switch {
		case !a.stored:
			s.inHand.remove(d.Key)
			s.schedule(aq.dest, now)
		case a.promised[i] && s.draining:
			back = append(back, &job{Job: attempt.Job{Message: a.message, Delivery: d}})
		case a.promised[i]:
			s.addReady(aq, relay.Claimed{Message: a.message, Delivery: d}, now)
		case !s.draining:
			s.noteDue(aq, d.Due, now)
		}
	}
	s.giveBack(back)
}
