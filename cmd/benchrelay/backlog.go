//go:build linux

package main

import (
	"context"
	"errors"
	"time"
)

const (
	// deadDomain has healthy neighbours on both sides, in the order of names.
	deadDomain   = "d50-dead.many.example"
	backlogSize  = kib
	idleInterval = 5 * time.Second
)

// idle gives the CPU that the subject uses when nothing is asked of it, as a
// share of one CPU.
func (g *rig) idle() float64 {
	before := g.subject.cpu()
	time.Sleep(idleInterval)
	return float64(g.subject.cpu()-before) / float64(idleInterval)
}

// measureBacklog measures healthy mail beside a destination that refuses all
// connections and has a great many messages waiting.
func measureBacklog(ctx context.Context, o options, rep *report) (err error) {
	dead := []HostSpec{{Domains: []string{deadDomain}, Dead: true}}
	b, err := newBesides(ctx, o, rep, troubled("queued", o.backlog), o.relay, dead)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	g := b.rigs[1]
	rep.fact("idle, empty queue", g.idle(), "CPUs")
	if err := g.fill(rep); err != nil {
		return err
	}
	if err := b.turns(o.turns()); err != nil {
		return err
	}
	rep.fact("idle, "+b.names[1], g.idle(), "CPUs")
	rep.fact("resident memory after all that", float64(g.subject.(*relayProcess).resident())/(1<<20), "MiB")
	return g.restart(ctx, rep)
}

// queue submits n small messages for domains that do not take them.
func (g *rig) queue(domains []string, n int) (sent RunResult, err error) {
	addr, secret := g.subject.submission()
	if err = g.gen.ask("Open", OpenSpec{
		Addr: addr, Secret: secret, TLS: true, Connections: g.o.connections, Size: backlogSize,
		Domains: domains,
	}, nil); err != nil {
		return
	}
	err = g.gen.ask("Run", RunSpec{Base: g.next, Count: n, NoTimes: true}, &sent)
	g.next += int64(n)
	return
}

// fill queues the backlog.
func (g *rig) fill(rep *report) error {
	g.subject.resetPeak()
	cpu0, begun := g.subject.cpu(), time.Now()
	sent, err := g.queue([]string{deadDomain}, g.o.backlog)
	if err != nil {
		return err
	}
	took := time.Since(begun)
	r := g.subject.(*relayProcess)
	rep.fact("queued for the dead destination", float64(sent.Taken), "messages")
	rep.fact("fill rate", float64(sent.Taken)/took.Seconds(), "messages/s")
	rep.fact("CPU per queued message", float64((g.subject.cpu()-cpu0).Microseconds())/float64(max(1, sent.Taken)), "µs")
	rep.fact("peak memory while filling", float64(r.peak())/(1<<20), "MiB")
	rep.fact("resident memory when full", float64(r.resident())/(1<<20), "MiB")
	return nil
}

// restart ends the relay, starts it again on the same queue, and times the
// first delivery to the healthy destination.
func (g *rig) restart(ctx context.Context, rep *report) error {
	old := g.subject.(*relayProcess)
	g.subject = nil
	begun := time.Now()
	if err := old.stop(); err != nil {
		return err
	}
	rep.fact("stopping", time.Since(begun).Seconds(), "s")
	begun = time.Now()
	r, err := startRelay(ctx, relaySetup{program: g.o.relay, dir: old.dir, world: g.world, secret: old.secret})
	if err != nil {
		return err
	}
	g.subject = r
	rep.fact("restart until ready", time.Since(begun).Seconds(), "s")
	if err := g.open(besideScenario()); err != nil {
		return err
	}
	_, got, err := g.burst(RunSpec{Count: 1})
	if err != nil {
		return err
	}
	if len(got.Arrivals) == 0 || got.Arrivals[0] == 0 {
		return errors.New("the first message after the restart did not arrive")
	}
	rep.fact("restart until the first delivery elsewhere", time.Unix(0, got.Arrivals[0]).Sub(begun).Seconds(), "s")
	time.Sleep(idleInterval)
	rep.fact("peak memory after the restart", float64(r.peak())/(1<<20), "MiB")
	return nil
}
