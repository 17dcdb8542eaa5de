//go:build linux

package main

import (
	"fmt"
	"time"
)

// scenario is one thing to measure.
type scenario struct {
	Name    string
	TLS     bool // STARTTLS on the way in and on the way out
	Size    int  // of the message, header included
	Domains int
	Delay   time.Duration // until a receiving host answers
	Floor   bool          // the generator straight to the hosts, no relay
	Policy  bool          // the account demands TLS 1.2 with a valid certificate; the relay only
	Half    bool          // measure once more at half the rate that was reached
}

// headline is the scenario that the project's promises are about.
const headline = "starttls/10KiB/1domain"

const (
	hostCount = 4   // receiving hosts when there are many domains
	manyCount = 100 // domains then
	kib       = 1 << 10
)

func scenarios() []scenario {
	return []scenario{
		{Name: "floor/plain/10KiB", Size: 10 * kib, Domains: 1, Floor: true},
		{Name: "floor/starttls/10KiB", TLS: true, Size: 10 * kib, Domains: 1, Floor: true},
		{Name: "plain/10KiB/1domain", Size: 10 * kib, Domains: 1},
		{Name: "plain/10KiB/100domains", Size: 10 * kib, Domains: manyCount},
		{Name: headline, TLS: true, Size: 10 * kib, Domains: 1, Half: true},
		{Name: headline + "/policy", TLS: true, Size: 10 * kib, Domains: 1, Policy: true},
		{Name: "starttls/10KiB/100domains", TLS: true, Size: 10 * kib, Domains: manyCount},
		{Name: "starttls/1KiB/1domain", TLS: true, Size: kib, Domains: 1},
		{Name: "starttls/100KiB/1domain", TLS: true, Size: 100 * kib, Domains: 1},
		{Name: "starttls/10KiB/1domain/20ms", TLS: true, Size: 10 * kib, Domains: 1, Delay: 20 * time.Millisecond},
	}
}

// world is the receiving side that the scenario needs.
func (s scenario) world() WorldSpec {
	if s.Domains == 1 {
		return WorldSpec{Hosts: []HostSpec{{Domains: []string{"one.example"}, TLS: s.TLS, Delay: s.Delay}}}
	}
	w := WorldSpec{Hosts: make([]HostSpec, hostCount)}
	for i := range w.Hosts {
		w.Hosts[i].TLS, w.Hosts[i].Delay = s.TLS, s.Delay
	}
	for i, name := range s.domains() {
		h := &w.Hosts[i%hostCount]
		h.Domains = append(h.Domains, name)
	}
	return w
}

func (s scenario) domains() []string {
	if s.Domains == 1 {
		return []string{"one.example"}
	}
	all := make([]string, s.Domains)
	for i := range all {
		all[i] = fmt.Sprintf("d%d.many.example", i)
	}
	return all
}
