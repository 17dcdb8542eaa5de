//go:build linux

package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"tlsrelay/relay/relaytest"
)

// sink is the process of the receiving hosts and their DNS zone.
type sink struct {
	connections, open, peak     atomic.Int64
	handshakes, resumed, octets atomic.Int64

	mu         sync.Mutex
	base       int64
	arrivals   []int64 // Unix time in ns, by token - base; 0: not yet
	got        int
	duplicates int
}

func newSink() *sink { return &sink{} }

// HostSpec is one receiving host.
type HostSpec struct {
	Domains []string // whose only MX it is
	TLS     bool
	Delay   time.Duration
	Pit     string // pitSilent, pitDrip: a tarpit
	Dead    bool   // refuses connections
}

// The kinds of tarpits.
const (
	pitSilent = "silent"
	pitDrip   = "drip"
)

// WorldSpec is everything that receives.
type WorldSpec struct{ Hosts []HostSpec }

// WorldAddr is where the world is.
type WorldAddr struct {
	DNS   string
	Port  int // of all hosts
	Hosts []string
	CA    []byte // PEM
}

// WaitSpec waits for a number of arrivals since the last reset.
type WaitSpec struct {
	Count   int
	Timeout time.Duration
}

// ArrivalStats is what happened since the last reset.
type ArrivalStats struct {
	Arrivals                         []int64
	Got, Duplicates                  int
	Connections, Handshakes, Resumed int64
	Open, Peak                       int64 // connections at a time
	Octets                           int64
}

// World is build for the parent.
func (s *sink) World(spec WorldSpec, to *WorldAddr) (err error) {
	*to, err = s.build(spec)
	return err
}

// Reset is reset for the parent.
func (s *sink) Reset(base int64, _ *int) error {
	s.reset(base)
	return nil
}

// Wait is wait for the parent.
func (s *sink) Wait(w WaitSpec, got *int) error {
	*got = s.wait(w)
	return nil
}

// Stats is stats for the parent.
func (s *sink) Stats(_ int, to *ArrivalStats) error {
	*to = s.stats()
	return nil
}

// build starts the world.
func (s *sink) build(spec WorldSpec) (WorldAddr, error) {
	w, err := relaytest.NewWorld()
	if err != nil {
		return WorldAddr{}, err
	}
	at := WorldAddr{DNS: w.Zone.Addr(), Port: w.Port, CA: w.CA.PEM()}
	for i, h := range spec.Hosts {
		addr, err := s.host(w, fmt.Sprintf("mx%d.hosts.example", i+1), h)
		if err != nil {
			return WorldAddr{}, err
		}
		at.Hosts = append(at.Hosts, addr)
	}
	return at, nil
}

// host starts one host and gives its address.
func (s *sink) host(w *relaytest.World, name string, h HostSpec) (string, error) {
	if h.Dead {
		return w.AddDeadHost("mx." + h.Domains[0]).String(), nil
	}
	r := &receiver{sink: s, name: name, delay: h.Delay, pit: h.Pit}
	if h.TLS {
		cert, err := w.CA.Issue(relaytest.Cert{Names: []string{name}})
		if err != nil {
			return "", err
		}
		r.tls = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	ln, err := w.Listen(name, h.Domains...)
	if err != nil {
		return "", err
	}
	go s.accept(ln, r)
	return ln.Addr().String(), nil
}

func (s *sink) accept(ln net.Listener, r *receiver) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		s.connections.Add(1)
		now := s.open.Add(1)
		for p := s.peak.Load(); now > p && !s.peak.CompareAndSwap(p, now); p = s.peak.Load() {
		}
		go func() {
			defer s.open.Add(-1)
			r.serve(c)
		}()
	}
}

// reset begins a count anew: with the tokens from base on.
func (s *sink) reset(base int64) {
	s.mu.Lock()
	s.base, s.arrivals, s.got, s.duplicates = base, nil, 0, 0
	s.mu.Unlock()
	s.connections.Store(0)
	s.handshakes.Store(0)
	s.resumed.Store(0)
	s.octets.Store(0)
	s.peak.Store(s.open.Load())
}

// arrived notes the messages; late ones of an earlier count are nobody's.
func (s *sink) arrived(tokens []int64, at int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range tokens {
		i := int(t - s.base)
		if i < 0 {
			continue
		}
		for i >= len(s.arrivals) {
			s.arrivals = append(s.arrivals, make([]int64, 4096)...)
		}
		if s.arrivals[i] != 0 {
			s.duplicates++
			continue
		}
		s.arrivals[i] = at
		s.got++
	}
}

// wait gives the number of messages that have come, once it is enough or time is over.
func (s *sink) wait(w WaitSpec) int {
	for end := time.Now().Add(w.Timeout); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		got := s.got
		s.mu.Unlock()
		if got >= w.Count || time.Now().After(end) {
			return got
		}
	}
}

func (s *sink) stats() ArrivalStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return ArrivalStats{
		Arrivals: s.arrivals, Got: s.got, Duplicates: s.duplicates,
		Connections: s.connections.Load(), Handshakes: s.handshakes.Load(), Resumed: s.resumed.Load(),
		Open: s.open.Load(), Peak: s.peak.Load(), Octets: s.octets.Load(),
	}
}
