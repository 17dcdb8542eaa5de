package resolve

import (
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// message builds an answer to an MX question for example.com.
func message(t testing.TB, rcode int, answer, authority []string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion("example.com.", dns.TypeMX)
	m.Response, m.Rcode = true, rcode
	for _, section := range []struct {
		from []string
		to   *[]dns.RR
	}{{answer, &m.Answer}, {authority, &m.Ns}} {
		for _, s := range section.from {
			rr, err := dns.NewRR(s)
			if err != nil {
				t.Fatal(err)
			}
			*section.to = append(*section.to, rr)
		}
	}
	return m
}

func TestInterpret(t *testing.T) {
	q := question{"example.com.", dns.TypeMX}
	soa := []string{"com. 900 IN SOA a. b. 1 1 1 1 60"}
	for _, c := range []struct {
		name   string
		rcode  int
		answer []string
		ns     []string
		want   outcome
		hosts  int
		ttl    time.Duration
	}{
		{"least TTL", 0, []string{"example.com. 300 MX 10 a.test.", "EXAMPLE.com. 200 MX 20 b.test."}, nil, found, 2, 200 * time.Second},
		{"zero TTL", 0, []string{"example.com. 0 MX 10 a.test."}, nil, found, 1, minTTL},
		{"TTL beyond belief", 0, []string{"example.com. 2000000000 MX 10 a.test."}, nil, found, 1, maxTTL},
		{"records of others", 0, []string{"other.com. 300 MX 10 a.test.", "example.com. 300 A 192.0.2.1"}, soa, noData, 0, time.Minute},
		{"another class", 0, []string{"example.com. 300 CH MX 10 a.test."}, soa, noData, 0, time.Minute},
		{"no data without SOA", 0, nil, nil, noData, 0, noSOATTL},
		{"SOA TTL below its minimum", 0, nil, []string{"com. 7 IN SOA a. b. 1 1 1 1 60"}, noData, 0, 7 * time.Second},
		{"long negative TTL", 0, nil, []string{"com. 90000 IN SOA a. b. 1 1 1 1 90000"}, noData, 0, maxNegative},
		{"NXDOMAIN", dns.RcodeNameError, nil, soa, noName, 0, time.Minute},
		{"NXDOMAIN with records", dns.RcodeNameError, []string{"example.com. 300 MX 10 a.test."}, soa, failed, 0, troubleTTL},
		{"referral", 0, nil, []string{"com. 300 NS ns.com."}, failed, 0, troubleTTL},
		{"SERVFAIL with records", dns.RcodeServerFailure, []string{"example.com. 300 MX 10 a.test."}, nil, failed, 0, troubleTTL},
		{"unknown code", 3841, nil, nil, failed, 0, troubleTTL},
		{"no EDNS0", dns.RcodeFormatError, nil, nil, refused, 0, troubleTTL},
		{"alias in any order", 0, []string{"b.test. 300 MX 10 a.test.", "example.com. 50 CNAME b.test."}, nil, found, 1, 50 * time.Second},
		{"alias alone", 0, []string{"example.com. 50 CNAME b.test."}, nil, aliasOnly, 0, 50 * time.Second},
		{"alias to nothing", 0, []string{"example.com. 50 CNAME b.test."}, soa, noData, 0, 50 * time.Second},
		{"alias to no name", dns.RcodeNameError, []string{"example.com. 50 CNAME b.test."}, soa, noName, 0, 50 * time.Second},
		{"loop", 0, []string{"example.com. 50 CNAME b.test.", "b.test. 50 CNAME example.com."}, nil, failed, 0, troubleTTL},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := interpret(message(t, c.rcode, c.answer, c.ns), q)
			if a.outcome != c.want || len(a.mx) != c.hosts || a.ttl != c.ttl {
				t.Errorf("%s, %d hosts, TTL %v; want %s, %d, %v", a.outcome, len(a.mx), a.ttl, c.want, c.hosts, c.ttl)
			}
		})
	}
}

func TestInterpretMinds(t *testing.T) {
	q := question{"example.com.", dns.TypeMX}
	for name, spoil := range map[string]func(*dns.Msg){
		"a query":          func(m *dns.Msg) { m.Response = false },
		"no question":      func(m *dns.Msg) { m.Question = nil },
		"another question": func(m *dns.Msg) { m.Question[0].Name = "example.org." },
		"another type":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA },
		"another opcode":   func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
	} {
		m := message(t, 0, []string{"example.com. 300 MX 10 a.test."}, nil)
		spoil(m)
		if a := interpret(m, q); a.outcome != unanswered {
			t.Errorf("%s: %s", name, a.outcome)
		}
	}
}

// FuzzInterpret holds the reading of any message to this: it ends, its TTL is
// within bounds, what is found is there, and trouble carries nothing.
func FuzzInterpret(f *testing.F) {
	for _, m := range []*dns.Msg{
		message(f, 0, []string{"example.com. 300 MX 10 a.test.", "example.com. 300 MX 0 ."}, nil),
		message(f, 0, []string{"example.com. 300 CNAME b.test.", "b.test. 9 MX 1 192.0.2.1."}, nil),
		message(f, 0, []string{"example.com. 300 CNAME example.com."}, nil),
		message(f, dns.RcodeNameError, nil, []string{"com. 900 IN SOA a. b. 1 1 1 1 60"}),
		message(f, 0, nil, []string{"com. 300 NS ns.com."}),
	} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		q := question{"example.com.", dns.TypeMX}
		if len(m.Question) == 1 {
			q = question{dns.CanonicalName(m.Question[0].Name), m.Question[0].Qtype}
		}
		a := interpret(m, q)
		if a.ttl < minTTL || a.ttl > maxTTL {
			t.Errorf("TTL %v", a.ttl)
		}
		if some := len(a.mx)+len(a.addrs) > 0; some != (a.outcome == found) && q.qtype != dns.TypeSOA {
			t.Errorf("%s with %d exchangers, %d addresses", a.outcome, len(a.mx), len(a.addrs))
		}
		if len(a.mx) > maxRecords || len(a.addrs) > maxRecords {
			t.Error("unbounded")
		}
		ordered, null := exchangers(a.mx)
		if null != (len(ordered) == 0) {
			t.Errorf("null %v with %d hosts", null, len(ordered))
		}
		for _, addr := range a.addrs {
			if addr.Is4In6() || dialable(addr, false) && addr == netip.IPv6Loopback() {
				t.Errorf("address %v", addr)
			}
		}
	})
}
