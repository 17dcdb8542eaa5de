//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// besideScenario is the healthy mail beside the trouble. It has many destinations, so that
// the one with the trouble has neighbours on all sides.
func besideScenario() scenario {
	return scenario{TLS: true, Size: 10 * kib, Domains: manyCount}
}

// besides are two relays with one difference: the world of the second has trouble in it,
// or the first is another build. They take turns, so that changes in the speed of the
// machine affect both.
type besides struct {
	names        [2]string
	rigs         [2]*rig
	rate         float64 // of the paced runs: half of what the first did
	rep          *report
	fast, steady [2][]row
}

// turns is how many turns there are: -repeat, or enough to see what is chance.
func (o options) turns() int { return max(o.repeat, 3) }

// newBesides starts both relays, the first with the given program. The hosts
// with the trouble come after those of the scenario.
func newBesides(ctx context.Context, o options, rep *report, names [2]string, first string, trouble []HostSpec) (b *besides, err error) {
	b = &besides{names: names, rep: rep}
	for i := range b.rigs {
		w, o := besideScenario().world(), o
		if i == 0 {
			o.relay = first
		} else {
			w.Hosts = append(w.Hosts, trouble...)
		}
		if b.rigs[i], err = newRig(o, w); err == nil {
			err = b.rigs[i].startRelay(ctx)
		}
		if err != nil {
			return nil, errors.Join(err, b.close())
		}
	}
	return b, nil
}

func (b *besides) close() (err error) {
	for _, g := range b.rigs {
		if g != nil {
			err = errors.Join(err, g.close())
		}
	}
	return err
}

// ready opens the connections for healthy mail and warms them up.
func (b *besides) ready() error {
	for _, g := range b.rigs {
		if err := g.open(besideScenario()); err != nil {
			return err
		}
		if _, _, err := g.burst(RunSpec{Duration: g.o.warm}); err != nil {
			return err
		}
	}
	return nil
}

// turns measures both, in turn: as fast as they go, then at the same rate.
func (b *besides) turns(n int) error {
	if err := b.ready(); err != nil {
		return err
	}
	for range n {
		for i, g := range b.rigs {
			if err := b.measure(&b.fast[i], g, b.names[i]+"/max", 0); err != nil {
				return err
			}
		}
		if b.rate == 0 {
			b.rate = b.fast[0][0].PerSecond / 2
		}
		for i, g := range b.rigs {
			if err := b.measure(&b.steady[i], g, b.names[i]+"/paced", b.rate); err != nil {
				return err
			}
		}
	}
	b.compare("CPU per healthy message", func(r row) float64 { return r.CPU })
	b.compare("p50", func(r row) float64 { return r.P50 })
	b.compare("p99", func(r row) float64 { return r.P99 })
	b.compare("messages per second", func(r row) float64 { return r.PerSecond })
	return nil
}

func (b *besides) measure(to *[]row, g *rig, name string, rate float64) error {
	r, err := g.measure(name, RunSpec{Duration: g.o.duration, Rate: rate})
	if err != nil {
		return err
	}
	*to = append(*to, r)
	b.rep.add(r)
	return nil
}

// compare reports the ratios of the second relay's figures to the first one's in the same
// turn: the median and the range.
func (b *besides) compare(what string, of func(row) float64) {
	for _, kind := range []struct {
		name string
		rows [2][]row
	}{{"as fast as it goes", b.fast}, {"paced", b.steady}} {
		var ratios []float64
		for i := range kind.rows[0] {
			ratios = append(ratios, of(kind.rows[1][i])/of(kind.rows[0][i]))
		}
		slices.Sort(ratios)
		b.rep.fact(fmt.Sprintf("%s, %s, against %s", what, kind.name, b.names[0]), percentile(ratios, 50),
			fmt.Sprintf("times (%.2f to %.2f in %d turns)", ratios[0], ratios[len(ratios)-1], len(ratios)))
	}
}

// troubled names the sides of a measurement with and without trouble.
func troubled(what string, n int) [2]string {
	return [2]string{what + "/0", fmt.Sprintf("%s/%d", what, n)}
}

// measureBuilds measures two builds of the relay.
func measureBuilds(ctx context.Context, o options, rep *report) (err error) {
	b, err := newBesides(ctx, o, rep, [2]string{"against", "build"}, o.against, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	return b.turns(o.turns())
}
