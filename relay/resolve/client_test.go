package resolve

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tlsrelay/relay/relaytest"
)

func TestTroubleOnTheWire(t *testing.T) {
	const good = "mx.example.com 198.41.0.4:25"
	const bad = "temporary destination 4.4.3 dns_failed"
	for _, c := range []struct {
		name    string
		trouble relaytest.Trouble
		want    string
	}{
		{"truncated", relaytest.Trouble{Truncate: true}, good},
		{"one packet lost", relaytest.Trouble{Silent: true, Times: 1}, good},
		{"UDP lost", relaytest.Trouble{SilentOn: "udp"}, good},
		{"truncated, and no TCP", relaytest.Trouble{Truncate: true, SilentOn: "tcp"}, bad},
		{"silence", relaytest.Trouble{Silent: true}, bad},
		{"one malformed answer", relaytest.Trouble{Raw: []byte{0x81, 0x80, 0, 1}, Times: 1}, good},
		{"malformed answers", relaytest.Trouble{Raw: []byte{0x81, 0x80, 0, 1}}, bad},
		{"no EDNS0", relaytest.Trouble{Rcode: dns.RcodeFormatError, Times: 1}, good},
		{"nothing but FORMERR", relaytest.Trouble{Rcode: dns.RcodeFormatError}, bad},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			timeout := 600 * time.Millisecond
			if c.want == good {
				timeout = 8 * time.Second
			}
			z, r := world(t, Options{Timeout: timeout})
			z.MX("example.com", "mx.example.com", 10)
			z.A("mx.example.com", ip("198.41.0.4"))
			z.Trouble("example.com", dns.TypeMX, c.trouble)
			begin := time.Now()
			if got := show(r.Route(t.Context(), "example.com")); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

func TestNoResolver(t *testing.T) {
	z, r := world(t, Options{Timeout: time.Second})
	z.Close()
	if got := show(r.Route(t.Context(), "example.com")); got != "temporary destination 4.4.3 dns_failed" {
		t.Error(got)
	}
}

// What a stranger's zone makes us keep is bounded in octets, and the best hosts
// are kept.
func TestWhatAnAnswerKeeps(t *testing.T) {
	q := question{"example.com.", dns.TypeMX}
	var rrs []dns.RR
	for i := range maxRecords {
		odd := strings.Repeat(`\001`, 60) + "."
		rrs = append(rrs, &dns.MX{
			Hdr:        dns.RR_Header{Name: q.name, Rrtype: q.qtype, Class: dns.ClassINET, Ttl: 60},
			Preference: uint16(1000 - i), Mx: strings.Repeat(odd, 4),
		})
	}
	rrs[maxRecords-1].(*dns.MX).Mx = "best.example.com."
	a := answer{ttl: time.Hour}
	a.collect(rrs, q)
	size := 0
	for _, m := range a.mx {
		size += len(m.host)
	}
	if len(a.mx) != maxNoted || size > maxNoted*maxHost || a.mx[0].host != "best.example.com" {
		t.Errorf("%d hosts, %d octets: %v", len(a.mx), size, a.mx[0])
	}
}

func TestLargeAnswer(t *testing.T) {
	z, r := world(t, Options{})
	for i := range 100 { // far beyond one packet
		z.MX("example.com", fmt.Sprintf("a-host-with-a-long-name-%03d.example.com", i), uint16(i))
	}
	route, _ := r.Route(t.Context(), "example.com")
	if len(route.Hosts) != maxNoted {
		t.Errorf("%d hosts", len(route.Hosts))
	}
}

func TestCaching(t *testing.T) {
	z, r := world(t, Options{Timeout: time.Minute}) // no question is asked twice
	now := time.Now()
	var mu sync.Mutex
	r.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	pass := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	mxs := func() int { return z.Queries("example.com", dns.TypeMX) }
	ask := func(want string) {
		t.Helper()
		if got := show(r.Route(t.Context(), "example.com")); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}

	z.SetTTL(100*time.Second, 20*time.Second)
	ask("permanent destination 5.1.2 no_such_domain")
	z.MX("example.com", "mx.example.com", 10)
	z.SetTTL(30*time.Second, 20*time.Second)
	z.A("mx.example.com", ip("198.41.0.4"))
	pass(19 * time.Second)
	ask("permanent destination 5.1.2 no_such_domain") // the negative answer's TTL
	pass(2 * time.Second)
	ask("mx.example.com 198.41.0.4:25")
	if mxs() != 2 {
		t.Errorf("%d MX questions, want 2", mxs())
	}

	z.Remove("mx.example.com")
	z.A("mx.example.com", ip("198.41.0.5"))
	pass(29 * time.Second)
	ask("mx.example.com 198.41.0.4:25")
	// The addresses are over, the missing AAAA (20 s) was before; the MX lives on.
	pass(2 * time.Second)
	ask("mx.example.com 198.41.0.5:25")
	if mxs() != 2 {
		t.Errorf("%d MX questions, want 2: its TTL is longer", mxs())
	}

	// Trouble is remembered for a second, no longer.
	pass(200 * time.Second)
	z.Trouble("example.com", 0, relaytest.Trouble{Rcode: dns.RcodeServerFailure, Times: 1})
	ask("temporary destination 4.4.3 dns_failed")
	ask("temporary destination 4.4.3 dns_failed")
	pass(time.Second)
	ask("mx.example.com 198.41.0.5:25")
}

func TestOneFlight(t *testing.T) {
	z, r := world(t, Options{DNSSEC: DNSSECOff, Timeout: time.Minute})
	z.MX("example.com", "mx.example.com", 10)
	z.A("mx.example.com", ip("198.41.0.4"))
	z.Trouble("example.com", dns.TypeMX, relaytest.Trouble{Delay: 50 * time.Millisecond})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if got := show(r.Route(t.Context(), "example.com")); got != "mx.example.com 198.41.0.4:25" {
				t.Error(got)
			}
		})
	}
	wg.Wait()
	if n := z.Total(); n != 3 {
		t.Errorf("%d questions for 50 routes, want 3", n)
	}
}

func TestFirstSelfTestDoesNotHold(t *testing.T) {
	z, r := world(t, Options{Timeout: 2 * time.Second})
	z.Trouble(".", 0, relaytest.Trouble{Silent: true})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := show(r.Route(ctx, "example.com")); got != "temporary destination 4.4.3 dns_failed" {
		t.Error(got)
	}
	z.Trouble(".", 0, relaytest.Trouble{})
}
