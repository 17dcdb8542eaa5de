package queue

import (
	"cmp"
	"context"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

// Options are the settings of a [Queue]. Every zero field means its default.
type Options struct {
	Hostname          string         // names us in reports; default "localhost"
	Schedule          relay.Schedule // defaults 5 min, 4 h, 72 h, 4 h
	MaxConnections    int            // attempts at a time, all lanes together; default 1000
	MaxPerDestination int            // attempts at a time in one lane; default 20

	// GuardDomains and GuardWithin are the mass-violation guard
	// (tls-policy §3.1): so many domains within that time; 0 domains: off.
	GuardDomains int
	GuardWithin  time.Duration // default 10 min

	// Drain is how long running attempts may go on after Run's context ended;
	// default 30 s.
	Drain time.Duration
	// Rescan is how often the store is asked for lanes that nobody told this
	// process of: another node's, or after a fault; default 1 min.
	Rescan time.Duration
}

func (o Options) withDefaults() Options {
	o.Hostname = cmp.Or(o.Hostname, "localhost")
	o.Schedule.RetryAfter = cmp.Or(o.Schedule.RetryAfter, 5*time.Minute)
	o.Schedule.RetryMax = cmp.Or(o.Schedule.RetryMax, 4*time.Hour)
	o.Schedule.Lifetime = cmp.Or(o.Schedule.Lifetime, 72*time.Hour)
	o.Schedule.DelayAfter = cmp.Or(o.Schedule.DelayAfter, 4*time.Hour)
	o.MaxConnections = cmp.Or(o.MaxConnections, 1000)
	o.MaxPerDestination = cmp.Or(o.MaxPerDestination, 20)
	o.GuardWithin = cmp.Or(o.GuardWithin, 10*time.Minute)
	o.Drain = cmp.Or(o.Drain, 30*time.Second)
	o.Rescan = cmp.Or(o.Rescan, time.Minute)
	return o
}

// Deliverer makes one attempt. relay/deliver implements it.
type Deliverer interface {
	Deliver(ctx context.Context, job deliver.Job) relay.Result
}

// Senders says what is demanded on the sender's side of a message for one
// destination (relay.Address.Destination): the settings of the account and of
// its parent, and the account's rule for that domain. An error that is
// account.ErrNotFound means that there is no such account any more, which ends
// the message; with account.ErrDisabled the message waits, and so do reports of our
// own, about which nothing else is asked; any other may pass.
type Senders interface {
	Sender(ctx context.Context, m relay.Message, destination string) (policy.Sender, error)
}
