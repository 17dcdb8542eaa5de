//go:build linux

package main

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// generator is the process that submits.
type generator struct {
	clients []*client
}

// OpenSpec says where and how to submit.
type OpenSpec struct {
	Addr        string
	TLS         bool
	Secret      string // for AUTH; "": none
	Connections int
	Size        int
	Domains     []string
}

// RunSpec is one run over the open connections. It ends after Count messages
// or after Duration, whichever comes first; 0: no such bound.
type RunSpec struct {
	Base     int64 // the first token
	Count    int
	Duration time.Duration
	Rate     float64 // messages per second in all; 0: as fast as it goes
	NoTimes  bool    // do not give Accepted
}

// RunResult is what came of a run.
type RunResult struct {
	Start    int64   // Unix time in ns
	End      int64   // of the last 250
	Offered  int     // tokens used
	Accepted []int64 // Unix time in ns of the 250, by token - base; 0: none
	Taken    int     // how many got their 250
}

// Open is open for the parent.
func (g *generator) Open(s OpenSpec, _ *int) error { return g.open(s) }

// Run is run for the parent.
func (g *generator) Run(s RunSpec, to *RunResult) (err error) {
	*to, err = g.run(s)
	return err
}

// open connects anew.
func (g *generator) open(s OpenSpec) error {
	for _, c := range g.clients {
		c.conn.Close()
	}
	g.clients = nil
	body := message(s.Size)
	for range s.Connections {
		c, err := dial(s, body)
		if err != nil {
			return err
		}
		g.clients = append(g.clients, c)
	}
	return nil
}

// pacer hands out tokens, each no earlier than it is due.
type pacer struct {
	RunSpec
	start time.Time
	next  atomic.Int64
}

// token gives the number of the next message; false: that was all.
func (p *pacer) token() (int64, bool) {
	i := p.next.Add(1) - 1
	if p.Count > 0 && i >= int64(p.Count) {
		return 0, false
	}
	if p.Rate > 0 {
		due := time.Duration(float64(i) / p.Rate * float64(time.Second))
		if p.Duration > 0 && due > p.Duration {
			return 0, false
		}
		time.Sleep(time.Until(p.start.Add(due)))
	}
	return i, p.Duration == 0 || time.Since(p.start) < p.Duration
}

// part is what one connection did in a run.
type part struct {
	tokens, times []int64
	err           error
}

func (g *generator) run(s RunSpec) (RunResult, error) {
	if s.Count == 0 && s.Duration == 0 {
		return RunResult{}, errors.New("a run without end")
	}
	p := &pacer{RunSpec: s, start: time.Now()}
	parts := make([]part, len(g.clients))
	var wg sync.WaitGroup
	for i, c := range g.clients {
		wg.Go(func() { parts[i] = c.work(p) })
	}
	wg.Wait()
	r := RunResult{Start: p.start.UnixNano()}
	for _, sh := range parts {
		if sh.err != nil {
			return r, sh.err
		}
		r.add(sh)
	}
	if s.NoTimes {
		r.Accepted = nil
	}
	return r, nil
}

func (r *RunResult) add(sh part) {
	r.Taken += len(sh.tokens)
	for i, t := range sh.tokens {
		for int(t) >= len(r.Accepted) {
			r.Accepted = append(r.Accepted, make([]int64, 4096)...)
		}
		r.Accepted[t] = sh.times[i]
		r.End = max(r.End, sh.times[i])
		r.Offered = max(r.Offered, int(t)+1)
	}
}

// work submits until the pacer has no more tokens. A refusal is an error.
func (c *client) work(p *pacer) (sh part) {
	for {
		t, more := p.token()
		if !more {
			return sh
		}
		if sh.err = c.send(p.Base + t); sh.err != nil {
			return sh
		}
		sh.tokens = append(sh.tokens, t)
		sh.times = append(sh.times, time.Now().UnixNano())
	}
}
