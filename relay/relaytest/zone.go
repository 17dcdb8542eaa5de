package relaytest

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Zone is a DNS server on loopback that answers like a recursive resolver
// which knows every name there is. Names are written without regard to case,
// with or without the trailing dot. Its methods are safe for concurrent use.
type Zone struct {
	addr    netip.AddrPort
	servers []*dns.Server
	served  sync.WaitGroup
	done    chan struct{}

	mu       sync.Mutex
	records  map[string]map[uint16][]dns.RR
	signed   map[string]bool // by the highest name of a signed zone
	troubles map[question]*Trouble
	asked    map[question]int
	total    int
	ttl      uint32
	negative uint32
}

// question names a record set; type 0 stands for any type.
type question struct {
	name  string
	qtype uint16
}

// NewZone starts an empty zone on UDP and TCP; port 0 picks one. Close it.
func NewZone(addr netip.AddrPort) (*Zone, error) {
	z := &Zone{
		done: make(chan struct{}), ttl: 300, negative: 60,
		records: map[string]map[uint16][]dns.RR{}, signed: map[string]bool{},
		troubles: map[question]*Trouble{}, asked: map[question]int{},
	}
	var ln net.Listener
	var pc net.PacketConn
	var err error
	// The port that TCP got may be taken on UDP.
	for range 10 {
		if ln, err = net.Listen("tcp", addr.String()); err != nil {
			return nil, err
		}
		z.addr = ln.Addr().(*net.TCPAddr).AddrPort()
		if pc, err = net.ListenPacket("udp", z.addr.String()); err == nil {
			break
		}
		ln.Close()
	}
	if err != nil {
		return nil, err
	}
	z.serve(&dns.Server{Listener: ln})
	z.serve(&dns.Server{PacketConn: pc})
	return z, nil
}

// serve starts s and returns once it can be shut down.
func (z *Zone) serve(s *dns.Server) {
	ready := make(chan struct{})
	s.Handler = dns.HandlerFunc(z.answer)
	s.NotifyStartedFunc = func() { close(ready) }
	z.servers = append(z.servers, s)
	z.served.Go(func() { s.ActivateAndServe() })
	<-ready
}

// Addr is host:port of the server, on UDP and TCP.
func (z *Zone) Addr() string { return z.addr.String() }

// Close stops the server.
func (z *Zone) Close() {
	z.mu.Lock()
	if isClosed(z.done) {
		z.mu.Unlock()
		return
	}
	close(z.done)
	z.mu.Unlock()
	for _, s := range z.servers {
		s.Shutdown()
	}
	z.served.Wait()
}

// SetTTL sets the TTL of records added from now on, and of negative answers;
// both in whole seconds. The defaults are 300 s and 60 s.
func (z *Zone) SetTTL(ttl, negative time.Duration) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.ttl, z.negative = uint32(ttl/time.Second), uint32(negative/time.Second)
}

// Add adds a record in the form of a zone file, without the TTL:
// "example.test. MX 10 mx1.example.test.".
func (z *Zone) Add(record string) error {
	rr, err := dns.NewRR(record)
	if err != nil || rr == nil {
		return fmt.Errorf("record %q: %w", record, err)
	}
	z.add(rr)
	return nil
}

func (z *Zone) add(rr dns.RR) {
	z.mu.Lock()
	defer z.mu.Unlock()
	h := rr.Header()
	h.Name, h.Class, h.Ttl = fqdn(h.Name), dns.ClassINET, z.ttl
	if z.records[h.Name] == nil {
		z.records[h.Name] = map[uint16][]dns.RR{}
	}
	z.records[h.Name][h.Rrtype] = append(z.records[h.Name][h.Rrtype], rr)
}

func head(name string, qtype uint16) dns.RR_Header { return dns.RR_Header{Name: name, Rrtype: qtype} }

// MX adds a mail exchanger. host may be an address in text, as some real
// zones have it.
func (z *Zone) MX(domain, host string, preference uint16) {
	z.add(&dns.MX{Hdr: head(domain, dns.TypeMX), Preference: preference, Mx: fqdn(host)})
}

// NullMX adds the MX record of a domain that takes no mail (RFC 7505).
func (z *Zone) NullMX(domain string) {
	z.add(&dns.MX{Hdr: head(domain, dns.TypeMX), Mx: "."})
}

// A adds addresses, as A or AAAA records.
func (z *Zone) A(name string, addrs ...netip.Addr) {
	for _, a := range addrs {
		if a.Is4() {
			z.add(&dns.A{Hdr: head(name, dns.TypeA), A: a.AsSlice()})
		} else {
			z.add(&dns.AAAA{Hdr: head(name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
}

// CNAME makes name an alias of target.
func (z *Zone) CNAME(name, target string) {
	z.add(&dns.CNAME{Hdr: head(name, dns.TypeCNAME), Target: fqdn(target)})
}

// TXT adds a TXT record.
func (z *Zone) TXT(name, text string) {
	z.add(&dns.TXT{Hdr: head(name, dns.TypeTXT), Txt: []string{text}})
}

// Remove removes every record of name.
func (z *Zone) Remove(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.records, fqdn(name))
}

// Sign makes answers about name and everything below it authentic (AD).
func (z *Zone) Sign(name string) { z.setSigned(name, true) }

// Unsign makes answers about name and everything below it insecure.
func (z *Zone) Unsign(name string) { z.setSigned(name, false) }

func (z *Zone) setSigned(name string, yes bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.signed[fqdn(name)] = yes
}

// Validate makes the server answer like a resolver that validates DNSSEC:
// the root is authentic, dnssec-failed.org is bogus. Names still have to be signed
// one by one.
func (z *Zone) Validate() {
	z.add(z.soa())
	z.Sign(".")
	for _, tld := range []string{"test.", "example.", "invalid.", "org."} {
		z.Unsign(tld)
	}
	z.Trouble("dnssec-failed.org", 0, Trouble{Rcode: dns.RcodeServerFailure})
}

// Queries counts the questions asked for name; qtype 0 counts all types.
func (z *Zone) Queries(name string, qtype uint16) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	if qtype != 0 {
		return z.asked[question{fqdn(name), qtype}]
	}
	n := 0
	for q, count := range z.asked {
		if q.name == fqdn(name) {
			n += count
		}
	}
	return n
}

// Total counts all questions asked.
func (z *Zone) Total() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.total
}

func (z *Zone) soa() *dns.SOA {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.soaLocked()
}

func (z *Zone) soaLocked() *dns.SOA {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: z.negative},
		Ns:  "ns.invalid.", Mbox: "nobody.invalid.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400,
		Minttl: z.negative,
	}
}

func fqdn(name string) string { return strings.ToLower(dns.Fqdn(name)) }
