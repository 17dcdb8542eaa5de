//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	deadDomain   = "dead.example"
	backlogSize  = kib
	idleInterval = 5 * time.Second
)

// besideScenario is the healthy mail beside what is wrong.
func besideScenario() scenario {
	return scenario{TLS: true, Size: 10 * kib, Domains: 1}
}

// beside measures healthy mail: as fast as it goes, and at the given rate.
func (g *rig) beside(name string, rate float64, rep *report) (fast, paced row, err error) {
	if err = g.open(besideScenario()); err != nil {
		return
	}
	if _, _, err = g.burst(runSpec{Duration: g.o.warm}); err != nil {
		return
	}
	if fast, err = g.measure(name+"/max", runSpec{Duration: g.o.duration}); err != nil {
		return
	}
	rep.add(fast)
	if rate == 0 {
		rate = fast.PerSecond / 2
	}
	if paced, err = g.measure(name+"/paced", runSpec{Duration: g.o.duration, Rate: rate}); err != nil {
		return
	}
	rep.add(paced)
	return
}

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
	w := besideScenario().world()
	w.Hosts = append(w.Hosts, hostSpec{Domains: []string{deadDomain}, Dead: true})
	g, err := newRig(o, w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if err := g.startRelay(ctx); err != nil {
		return err
	}
	fast, paced, err := g.beside("queued/0", 0, rep)
	if err != nil {
		return err
	}
	rep.fact("idle, empty queue", g.idle(), "CPUs")
	if err := g.fill(rep); err != nil {
		return err
	}
	name := fmt.Sprintf("queued/%d", o.backlog)
	fastN, pacedN, err := g.beside(name, paced.Offered, rep)
	if err != nil {
		return err
	}
	rep.fact("idle, "+name, g.idle(), "CPUs")
	rep.fact("resident memory after all that", float64(g.subject.(*relayProcess).resident())/(1<<20), "MiB")
	rep.fact("CPU per healthy message, against an empty queue", fastN.CPU/fast.CPU, "times (as fast as it goes)")
	rep.fact("CPU per healthy message, against an empty queue", pacedN.CPU/paced.CPU, "times (paced)")
	return g.restart(ctx, rep)
}

// fill queues the backlog.
func (g *rig) fill(rep *report) error {
	addr, secret := g.subject.submission()
	err := g.gen.ask("open", openSpec{
		Addr: addr, Secret: secret, TLS: true, Connections: g.o.connections, Size: backlogSize,
		Domains: []string{deadDomain}, BDAT: g.o.bdat,
	}, nil)
	if err != nil {
		return err
	}
	g.subject.resetPeak()
	cpu0, begun := g.subject.cpu(), time.Now()
	var sent runResult
	if err := g.gen.ask("run", runSpec{Base: g.next, Count: g.o.backlog, NoTimes: true}, &sent); err != nil {
		return err
	}
	g.next += int64(g.o.backlog)
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
	_, got, err := g.burst(runSpec{Count: 1})
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
