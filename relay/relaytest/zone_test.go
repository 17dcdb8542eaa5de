package relaytest

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask asks z, and waits for an answer as long as it takes.
func ask(t *testing.T, z *Zone, network, name string, qtype uint16) (*dns.Msg, error) {
	t.Helper()
	return askWithin(t, Patience, z, network, name, qtype)
}

func askWithin(t *testing.T, limit time.Duration, z *Zone, network, name string, qtype uint16) (*dns.Msg, error) {
	t.Helper()
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, true)
	c := dns.Client{Net: network, Timeout: limit}
	r, _, err := c.ExchangeContext(context.Background(), m, z.Addr())
	return r, err
}

func TestZone(t *testing.T) {
	w := Start(t)
	z := w.Zone
	z.SetTTL(30*time.Second, 7*time.Second)
	z.MX("Example.test", "mx1.example.test", 10)
	z.A("mx1.example.test", netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("::1"))
	z.CNAME("alias.test", "example.test")
	z.CNAME("loop.test", "loop.test")
	z.A("deep.signed.test", netip.MustParseAddr("127.0.0.9"))
	z.CNAME("half.signed.test", "mx1.example.test")
	z.Sign("signed.test")
	for _, c := range []struct {
		name    string
		qtype   uint16
		rcode   int
		answers int
		ad      bool
	}{
		{"EXAMPLE.test", dns.TypeMX, dns.RcodeSuccess, 1, false},
		{"mx1.example.test", dns.TypeAAAA, dns.RcodeSuccess, 1, false},
		{"mx1.example.test", dns.TypeMX, dns.RcodeSuccess, 0, false},
		{"alias.test", dns.TypeMX, dns.RcodeSuccess, 2, false},
		{"loop.test", dns.TypeMX, dns.RcodeServerFailure, 0, false},
		{"none.test", dns.TypeMX, dns.RcodeNameError, 0, false},
		{"signed.test", dns.TypeMX, dns.RcodeSuccess, 0, true},
		{"none.signed.test", dns.TypeMX, dns.RcodeNameError, 0, true},
		{"deep.signed.test", dns.TypeA, dns.RcodeSuccess, 1, true},
		{"half.signed.test", dns.TypeA, dns.RcodeSuccess, 2, false},
	} {
		for _, network := range []string{"udp", "tcp"} {
			r, err := ask(t, z, network, c.name, c.qtype)
			if err != nil {
				t.Fatalf("%s %s: %v", c.name, network, err)
			}
			if r.Rcode != c.rcode || len(r.Answer) != c.answers || r.AuthenticatedData != c.ad {
				t.Errorf("%s %s: %s", c.name, network, r)
			}
			if c.answers == 0 && c.rcode != dns.RcodeServerFailure && r.Ns[0].Header().Ttl != 7 {
				t.Errorf("%s: negative TTL %d", c.name, r.Ns[0].Header().Ttl)
			}
		}
	}
	if n := z.Queries("example.test", dns.TypeMX); n != 2 {
		t.Errorf("counted %d questions", n)
	}
}

func TestZoneTrouble(t *testing.T) {
	z := Start(t).Zone
	z.MX("example.test", "mx1.example.test", 10)
	z.Trouble("example.test", dns.TypeMX, Trouble{Rcode: dns.RcodeRefused, Times: 1})
	if r, err := ask(t, z, "udp", "example.test", dns.TypeMX); err != nil || r.Rcode != dns.RcodeRefused {
		t.Errorf("%v %v", r, err)
	}
	if r, err := ask(t, z, "udp", "example.test", dns.TypeMX); err != nil || len(r.Answer) != 1 {
		t.Errorf("after one refusal: %v %v", r, err)
	}
	z.Trouble("example.test", 0, Trouble{Truncate: true})
	if r, err := ask(t, z, "udp", "example.test", dns.TypeMX); err != nil || !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("%v %v", r, err)
	}
	if r, err := ask(t, z, "tcp", "example.test", dns.TypeMX); err != nil || r.Truncated || len(r.Answer) != 1 {
		t.Errorf("%v %v", r, err)
	}
	z.Trouble("example.test", 0, Trouble{Silent: true})
	if r, err := askWithin(t, 200*time.Millisecond, z, "udp", "example.test", dns.TypeMX); err == nil {
		t.Errorf("a silent server said %v", r)
	}
	z.Trouble("example.test", 0, Trouble{Raw: []byte{0x81}})
	if r, err := askWithin(t, 200*time.Millisecond, z, "udp", "example.test", dns.TypeMX); err == nil {
		t.Errorf("malformed answer read as %v", r)
	}
}

func TestZoneValidates(t *testing.T) {
	z := Start(t).Zone
	z.Validate()
	if r, err := ask(t, z, "udp", ".", dns.TypeSOA); err != nil || !r.AuthenticatedData || len(r.Answer) != 1 {
		t.Errorf("%v %v", r, err)
	}
	if r, err := ask(t, z, "udp", "dnssec-failed.org", dns.TypeA); err != nil || r.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v %v", r, err)
	}
}
