package queue

import (
	"cmp"
	"time"

	"tlsrelay/relay"
)

// Options are the settings of a [Queue]. Every zero field means its default.
type Options struct {
	Hostname          string         // names us in reports; default "localhost"
	Schedule          relay.Schedule // defaults 5 min, 4 h, 72 h, 4 h
	MaxConnections    int            // attempts at a time, all destinations together; default 1000
	MaxPerDestination int            // attempts at a time in one destination queue; default 20

	// GuardDomains and GuardWithin are the mass-violation guard (policy.Guard): so
	// many domains within that time; 0 domains: off.
	GuardDomains int
	GuardWithin  time.Duration // default 10 min

	// Drain is how long running attempts may go on after Run's context ended;
	// default 30 s.
	Drain time.Duration
	// Rescan is how often the store is asked for backlogs that nobody told this
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
