//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
)

const (
	maxTarpits    = 5000
	tarpitBacklog = 20 // messages for each of them
)

// measureTarpits measures healthy mail without and beside hosts that take
// connections and never answer.
func measureTarpits(ctx context.Context, o options, rep *report) (err error) {
	w := besideScenario().world()
	var domains []string
	for i := range o.tarpits {
		kind, name := pitSilent, fmt.Sprintf("pit%d.example", i)
		if i%2 == 1 {
			kind = pitDrip
		}
		domains = append(domains, name)
		w.Hosts = append(w.Hosts, hostSpec{Domains: []string{name}, Pit: kind})
	}
	g, err := newRig(o, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.startRelay(ctx); err != nil {
		return err
	}
	fast, paced, err := g.beside("tarpits/0", 0, rep)
	if err != nil {
		return err
	}
	addr, secret := g.subject.submission()
	err = g.gen.ask("open", openSpec{
		Addr: addr, Secret: secret, TLS: true, Connections: o.connections, Size: backlogSize, Domains: domains,
	}, nil)
	if err != nil {
		return err
	}
	var sent runResult
	n := o.tarpits * tarpitBacklog
	if err := g.gen.ask("run", runSpec{Base: g.next, Count: n, NoTimes: true}, &sent); err != nil {
		return err
	}
	g.next += int64(n)
	rep.fact("queued for tarpits", float64(sent.Taken), "messages")
	fastN, pacedN, err := g.beside(fmt.Sprintf("tarpits/%d", o.tarpits), paced.Offered, rep)
	if err != nil {
		return err
	}
	var now arrivalStats
	if err := g.sink.ask("stats", nil, &now); err != nil {
		return err
	}
	rep.fact("connections open at the end, tarpits included", float64(now.Open), "")
	rep.fact("p99, against none", pacedN.P99/paced.P99, "times")
	rep.fact("messages per second, against none", fastN.PerSecond/fast.PerSecond, "times")
	return nil
}
