//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// row is one measurement.
type row struct {
	Scenario string
	Subject  string  // tlsrelay, postfix, or floor: no relay
	Offered  float64 // messages per second that were offered; 0: as fast as it went

	Messages  int
	Seconds   float64 // from the first submission to the last arrival
	PerSecond float64

	CPU, GeneratorCPU, SinkCPU float64 // µs per message
	PeakBytes                  int64
	P50, P99                   float64 // ms from the 250 to the arrival
	Syncs                      float64 // flushes of the disk per message

	Connections, Handshakes, Resumed int64
	PeakConnections                  int64
	PerConnection                    float64 // messages per second for each of PeakConnections

	Lost, Duplicates int
}

// rig is everything that is needed to measure one subject in one world.
type rig struct {
	o       options
	sink    *child
	gen     *child
	world   WorldAddr
	subject subject // nil: the floor
	next    int64   // token
}

func newRig(o options, w WorldSpec) (g *rig, err error) {
	g = &rig{o: o}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.sink, err = startChild("sink"); err != nil {
		return g, err
	}
	if g.gen, err = startChild("generate"); err != nil {
		return g, err
	}
	return g, g.sink.ask("World", w, &g.world)
}

func (g *rig) close() error {
	var err error
	if g.subject != nil {
		begun := time.Now()
		err = g.subject.stop()
		if took := time.Since(begun); took > 2*time.Second {
			fmt.Fprintf(os.Stderr, "%s took %v to stop\n", g.subject.name(), took.Round(time.Second/10))
		}
	}
	for _, c := range []*child{g.gen, g.sink} {
		if c != nil {
			c.stop()
		}
	}
	return err
}

// startRelay puts a fresh relay into the rig.
func (g *rig) startRelay(ctx context.Context) error {
	dir, err := os.MkdirTemp(g.o.dir, "relay-")
	if err != nil {
		return err
	}
	r, err := startRelay(ctx, relaySetup{program: g.o.relay, dir: dir, world: g.world})
	if err != nil {
		return err
	}
	g.subject = r
	return nil
}

// open opens the generator's connections to the subject, or to a host.
func (g *rig) open(s scenario) error {
	spec := OpenSpec{
		Addr: g.world.Hosts[0], TLS: s.TLS, Connections: g.o.connections,
		Size: s.Size, Domains: s.domains(),
	}
	if g.subject != nil {
		spec.Addr, spec.Secret = g.subject.submission()
	}
	return g.gen.ask("Open", spec, nil)
}

// drainLimit is how long the last messages of a run may take to arrive.
const drainLimit = time.Minute

// burst submits, and waits until everything that was taken has arrived.
func (g *rig) burst(s RunSpec) (sent RunResult, got ArrivalStats, err error) {
	s.Base = g.next
	if err = g.sink.ask("Reset", s.Base, nil); err != nil {
		return
	}
	if err = g.gen.ask("Run", s, &sent); err != nil {
		return
	}
	g.next += int64(sent.Offered) + int64(g.o.connections)
	if err = g.sink.ask("Wait", WaitSpec{sent.Taken, drainLimit}, nil); err != nil {
		return
	}
	return sent, got, g.sink.ask("Stats", 0, &got)
}

// settle is how long after the last arrival the CPU time is read, so that it includes what
// the subject does after a delivery.
const settle = 100 * time.Millisecond

// measure makes one measurement of an open, warm rig.
func (g *rig) measure(name string, s RunSpec) (row, error) {
	r := row{Scenario: name, Subject: "floor", Offered: s.Rate}
	var syncs float64
	var cpu0 time.Duration
	if g.subject != nil {
		r.Subject = g.subject.name()
		g.subject.resetPeak()
		syncs = flushes(g.o.dir)
		cpu0 = g.subject.cpu()
	}
	gen0, sink0 := cpu(g.gen.pid()), cpu(g.sink.pid())
	saved := g.startProfile(name, s)
	sent, got, err := g.burst(s)
	if err != nil {
		return r, fmt.Errorf("%s: %w", name, err)
	}
	time.Sleep(settle)
	r.count(sent, got)
	perMessage := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(max(1, got.Got)) }
	r.GeneratorCPU, r.SinkCPU = perMessage(cpu(g.gen.pid())-gen0), perMessage(cpu(g.sink.pid())-sink0)
	if g.subject != nil {
		r.CPU, r.PeakBytes = perMessage(g.subject.cpu()-cpu0), g.subject.peak()
		r.Syncs = (flushes(g.o.dir) - syncs) / float64(max(1, got.Got))
	}
	return r, <-saved
}

// startProfile saves a profile of the relay over the run, if that is wanted.
func (g *rig) startProfile(name string, s RunSpec) <-chan error {
	saved := make(chan error, 1)
	p, ok := g.subject.(*relayProcess)
	if !ok || g.o.profile == "" {
		saved <- nil
		return saved
	}
	to := filepath.Join(g.o.profile, strings.ReplaceAll(name, "/", "-")+".pprof")
	go func() { saved <- errors.Join(os.MkdirAll(g.o.profile, 0o755), p.profile(s.Duration, to)) }()
	return saved
}

// count compares what was sent with what arrived.
func (r *row) count(sent RunResult, got ArrivalStats) {
	var latencies []float64
	last := sent.End
	for i, at := range sent.Accepted {
		if at == 0 {
			continue
		}
		if i >= len(got.Arrivals) || got.Arrivals[i] == 0 {
			r.Lost++
			continue
		}
		// A host may have the message before the generator has the 250.
		latencies = append(latencies, max(0, float64(got.Arrivals[i]-at)/1e6))
		last = max(last, got.Arrivals[i])
	}
	r.Messages, r.Duplicates = len(latencies), got.Duplicates
	r.Seconds = float64(last-sent.Start) / 1e9
	r.PerSecond = float64(r.Messages) / r.Seconds
	r.P50, r.P99 = percentile(latencies, 50), percentile(latencies, 99)
	r.Connections, r.Handshakes, r.Resumed = got.Connections, got.Handshakes, got.Resumed
	r.PeakConnections = got.Peak
	r.PerConnection = r.PerSecond / float64(max(1, got.Peak))
}

// percentile gives the nearest-rank percentile; it sorts v.
func percentile(v []float64, p int) float64 {
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	return v[max(0, (len(v)*p+99)/100-1)]
}

// measureScenarios measures all scenarios that were asked for.
func measureScenarios(ctx context.Context, o options, rep *report) error {
	for range o.repeat {
		for _, s := range scenarios() {
			if !o.run.MatchString(s.Name) {
				continue
			}
			if err := measureScenario(ctx, o, s, rep, (*rig).startRelay); err != nil {
				return err
			}
			if o.postfix && !s.Floor && !s.Policy {
				start := func(g *rig, ctx context.Context) error { return g.startPostfix(ctx, s) }
				if err := measureScenario(ctx, o, s, rep, start); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// measureScenario measures one scenario with the subject that start starts.
func measureScenario(ctx context.Context, o options, s scenario, rep *report, start func(*rig, context.Context) error) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	g, err := newRig(o, s.world())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	if !s.Floor {
		if err := start(g, ctx); err != nil {
			return err
		}
	}
	if p, ok := g.subject.(*relayProcess); ok && s.Policy {
		if err := p.demand(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	if err := g.open(s); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	if _, _, err := g.burst(RunSpec{Duration: o.warm}); err != nil {
		return fmt.Errorf("%s: warming up: %w", s.Name, err)
	}
	r, err := g.measure(s.Name, RunSpec{Duration: o.duration})
	if err != nil {
		return err
	}
	rep.add(r)
	if s.Half {
		half, err := g.measure(s.Name+"/half", RunSpec{Duration: o.duration, Rate: r.PerSecond / 2})
		if err != nil {
			return err
		}
		rep.add(half)
	}
	return nil
}
