//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
)

const (
	maxTarpits    = 1000 // a relaytest.World has room for few more hosts
	tarpitBacklog = 20   // messages for each of them
)

// measureTarpits measures healthy mail without and beside hosts that take
// connections and never answer.
func measureTarpits(ctx context.Context, o options, rep *report) (err error) {
	var domains []string
	var hosts []HostSpec
	for i := range o.tarpits {
		kind, name := pitSilent, fmt.Sprintf("d%d-pit.many.example", i)
		if i%2 == 1 {
			kind = pitDrip
		}
		domains = append(domains, name)
		hosts = append(hosts, HostSpec{Domains: []string{name}, Pit: kind})
	}
	b, err := newBesides(ctx, o, rep, troubled("tarpits", o.tarpits), o.relay, hosts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	g := b.rigs[1]
	n := o.tarpits * tarpitBacklog
	sent, err := g.queue(domains, n)
	if err != nil {
		return err
	}
	rep.fact("queued for tarpits", float64(sent.Taken), "messages")
	if err := b.turns(o.turns()); err != nil {
		return err
	}
	var now ArrivalStats
	if err := g.sink.ask("Stats", 0, &now); err != nil {
		return err
	}
	rep.fact("connections open at the end, tarpits included", float64(now.Open), "")
	return nil
}
