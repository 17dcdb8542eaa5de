//go:build linux

package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
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
	done       chan struct{} // closed once got reaches want
	want       int
}

func newSink() *sink { return &sink{} }

// hostSpec is one receiving host.
type hostSpec struct {
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

// worldSpec is everything that receives.
type worldSpec struct{ Hosts []hostSpec }

// worldAddr is where the world is.
type worldAddr struct {
	DNS   string
	Port  int // of all hosts
	Hosts []string
	CA    []byte // PEM
}

// waitSpec waits for a number of arrivals since the last reset.
type waitSpec struct {
	Count   int
	Timeout time.Duration
}

// arrivalStats is what happened since the last reset.
type arrivalStats struct {
	Arrivals                         []int64
	Got, Duplicates                  int
	Connections, Handshakes, Resumed int64
	Open, Peak                       int64 // connections at a time
	Octets                           int64
}

// answer obeys the parent.
func (s *sink) answer(op string, with []byte) (any, error) {
	switch op {
	case "world":
		var spec worldSpec
		if err := json.Unmarshal(with, &spec); err != nil {
			return nil, err
		}
		return s.build(spec)
	case "reset":
		var base int64
		if err := json.Unmarshal(with, &base); err != nil {
			return nil, err
		}
		s.reset(base)
		return nil, nil
	case "wait":
		var w waitSpec
		if err := json.Unmarshal(with, &w); err != nil {
			return nil, err
		}
		return s.wait(w), nil
	case "stats":
		return s.stats(), nil
	}
	return nil, fmt.Errorf("unknown request %q", op)
}

// build starts the world on a block of loopback addresses.
func (s *sink) build(spec worldSpec) (worldAddr, error) {
	ca, err := relaytest.NewCA()
	if err != nil {
		return worldAddr{}, err
	}
	b := &builder{sink: s, ca: ca}
	for range 20 { // somebody else may use the block or the port
		b.block = [2]byte{byte(1 + rand.N(250)), byte(1 + rand.N(200))}
		if err = b.build(spec); err == nil {
			return b.addr, nil
		}
		b.undo()
	}
	return worldAddr{}, err
}

type builder struct {
	sink  *sink
	ca    *relaytest.CA
	block [2]byte
	zone  *relaytest.Zone
	bound []net.Listener
	addr  worldAddr
}

func (b *builder) address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{127, b.block[0], b.block[1] + byte(n/250), byte(1 + n%250)})
}

func (b *builder) build(spec worldSpec) (err error) {
	b.addr = worldAddr{CA: b.ca.PEM()}
	if b.zone, err = relaytest.NewZone(netip.AddrPortFrom(b.address(0), 0)); err != nil {
		return err
	}
	b.addr.DNS = b.zone.Addr()
	for i, h := range spec.Hosts {
		if err := b.host(i+1, h); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) host(n int, h hostSpec) error {
	name, ip := fmt.Sprintf("mx%d.hosts.example", n), b.address(n)
	b.zone.A(name, ip)
	for _, d := range h.Domains {
		b.zone.MX(d, name, 10)
	}
	addr := netip.AddrPortFrom(ip, uint16(b.addr.Port))
	if h.Dead {
		if b.addr.Port == 0 {
			return errors.New("the first host must be alive: it picks the port")
		}
		b.addr.Hosts = append(b.addr.Hosts, addr.String())
		return nil
	}
	r := &receiver{sink: b.sink, name: name, delay: h.Delay, pit: h.Pit}
	if h.TLS {
		cert, err := b.ca.Issue(relaytest.Cert{Names: []string{name}})
		if err != nil {
			return err
		}
		r.tls = &tls.Config{Certificates: []tls.Certificate{cert}}
	}
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		return err
	}
	b.bound = append(b.bound, ln)
	b.addr.Port = ln.Addr().(*net.TCPAddr).Port
	b.addr.Hosts = append(b.addr.Hosts, ln.Addr().String())
	go b.sink.accept(ln, r)
	return nil
}

func (b *builder) undo() {
	for _, ln := range b.bound {
		ln.Close()
	}
	b.bound = nil
	if b.zone != nil {
		b.zone.Close()
		b.zone = nil
	}
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
	s.base, s.arrivals, s.got, s.duplicates, s.done = base, s.arrivals[:0:0], 0, 0, nil
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
		if s.got++; s.done != nil && s.got == s.want {
			close(s.done)
		}
	}
}

// wait gives the number of messages that have come.
func (s *sink) wait(w waitSpec) int {
	s.mu.Lock()
	if s.got >= w.Count {
		defer s.mu.Unlock()
		return s.got
	}
	done := make(chan struct{})
	s.done, s.want = done, w.Count
	s.mu.Unlock()
	select {
	case <-done:
	case <-time.After(w.Timeout):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = nil
	return s.got
}

func (s *sink) stats() arrivalStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return arrivalStats{
		Arrivals: s.arrivals, Got: s.got, Duplicates: s.duplicates,
		Connections: s.connections.Load(), Handshakes: s.handshakes.Load(), Resumed: s.resumed.Load(),
		Open: s.open.Load(), Peak: s.peak.Load(), Octets: s.octets.Load(),
	}
}
