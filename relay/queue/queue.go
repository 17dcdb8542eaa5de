package queue

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/relay"
)

// Queue decides when what is tried, and sees each attempt to its commit. Its
// methods are safe for concurrent use.
type Queue struct {
	o         Options
	store     relay.Store
	deliverer Deliverer
	senders   Senders
	tell      func(events.Event)
	log       *zap.Logger
}

// New makes a queue. Nothing runs until [Queue.Run]; until then Accept only
// stores. tell is called with every event after its commit, from many
// goroutines at once, and must not block; reg may be nil.
func New(o Options, store relay.Store, d Deliverer, s Senders, tell func(events.Event), log *zap.Logger, reg prometheus.Registerer) *Queue {
	return &Queue{o: o.withDefaults(), store: store, deliverer: d, senders: s, tell: tell, log: log}
}

// Run owns the lanes until ctx ends. Then it begins nothing new, lets running
// attempts and their commits finish (Options.Drain, then it cuts them off),
// and gives back what was claimed and not begun.
func (q *Queue) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// NewDraft begins a body.
func (q *Queue) NewDraft() relay.Draft { return q.store.NewDraft() }

// Accept splits a message by destination and makes it durable: when it
// returns nil the message may be answered for. It ends the draft, whatever it
// returns; any error is temporary.
func (q *Queue) Accept(ctx context.Context, m relay.Message, rcpts []relay.Recipient, body relay.Draft) error {
	return nil
}

// Kick ends the cool-off of a lane: what is due there is tried now.
func (q *Queue) Kick(lane relay.Lane) {}

// Retry tells that something of a lane and an account is due at b.Due, after
// it was changed in the store by another hand: an operator's retry or release.
func (q *Queue) Retry(b relay.Backlog) {}

// Lanes gives the lanes in memory, in no order; nil while Run is not on.
func (q *Queue) Lanes() []LaneStatus { return nil }

