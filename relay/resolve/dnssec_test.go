package resolve

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"tlsrelay/policy"
	"tlsrelay/relay/relaytest"
)

func TestAuthentic(t *testing.T) {
	signed := func(z *relaytest.Zone) { z.Sign("example.com") }
	for _, c := range []struct {
		name, mode string
		zone       func(*relaytest.Zone)
		dest       string
		want       policy.MXAuth
	}{
		{"auto, validating, signed", "auto", func(z *relaytest.Zone) { z.Validate(); signed(z) }, "example.com", policy.MXDNSSEC},
		{"the default is auto", "", func(z *relaytest.Zone) { z.Validate(); signed(z) }, "example.com", policy.MXDNSSEC},
		{"auto, validating, unsigned", "auto", func(z *relaytest.Zone) { z.Validate() }, "plain.test", policy.MXUnsigned},
		{"auto, not validating", "auto", signed, "example.com", policy.MXUnsigned},
		{"auto, bogus names pass", "auto", func(z *relaytest.Zone) {
			z.Validate()
			signed(z)
			z.Trouble("dnssec-failed.org", 0, relaytest.Trouble{})
			z.A("dnssec-failed.org", ip("198.41.0.4"))
		}, "example.com", policy.MXUnsigned},
		{"auto, bogus name unanswered", "auto", func(z *relaytest.Zone) {
			z.Validate()
			signed(z)
			z.Trouble("dnssec-failed.org", 0, relaytest.Trouble{Silent: true})
		}, "example.com", policy.MXDNSSEC},
		{"trust", "trust", signed, "example.com", policy.MXDNSSEC},
		{"trust, unsigned", "trust", signed, "plain.test", policy.MXUnsigned},
		{"off", "off", func(z *relaytest.Zone) { z.Validate(); signed(z) }, "example.com", policy.MXUnsigned},
		{"signed alias to unsigned zone", "trust", signed, "alias.example.com", policy.MXUnsigned},
		{"implicit MX", "trust", signed, "mx.example.com", policy.MXDNSSEC},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			z, r := world(t, Options{DNSSEC: c.mode, Timeout: 5 * time.Second})
			for _, d := range []string{"example.com", "plain.test"} {
				z.MX(d, "mx.example.com", 10)
			}
			z.CNAME("alias.example.com", "plain.test")
			z.A("mx.example.com", ip("198.41.0.4"))
			c.zone(z)
			route, f := r.Route(t.Context(), c.dest)
			if f != nil {
				t.Fatal(f)
			}
			if got := route.Hosts[0].Facts.MX; got != c.want {
				t.Errorf("mx_auth %s, want %s", got, c.want)
			}
		})
	}
}

// Until a self-test was answered, an unsigned MX proves nothing, and is looked at
// again once one was.
func TestSelfTestUnanswered(t *testing.T) {
	for _, signed := range []bool{true, false} {
		z, r := world(t, Options{Timeout: 5 * time.Second})
		if signed {
			z.Validate()
			z.Sign("example.com")
		}
		z.MX("example.com", "mx.example.com", 10)
		z.A("mx.example.com", ip("198.41.0.4"))
		z.Trouble(".", dns.TypeSOA, relaytest.Trouble{Rcode: dns.RcodeServerFailure})
		for range 2 { // the second time from the cache
			route, f := r.Route(t.Context(), "example.com")
			if f != nil || !route.Unproven || route.Hosts[0].Facts.MX != policy.MXUnsigned {
				t.Fatalf("before: %+v %v", route, f)
			}
		}
		z.Trouble(".", dns.TypeSOA, relaytest.Trouble{})
		if v := r.selfTest(t.Context()); v == unknown {
			t.Fatal("the test was not answered")
		}
		want := policy.MXUnsigned
		if signed {
			want = policy.MXDNSSEC
		}
		route, f := r.Route(t.Context(), "example.com")
		if f != nil || route.Unproven || route.Hosts[0].Facts.MX != want {
			t.Errorf("after, signed %v: %+v %v", signed, route, f)
		}
	}
}

func TestAutoBelievesLoopbackOnly(t *testing.T) {
	for server, want := range map[string]bool{
		"127.0.0.1:53": true, "127.5.0.1:53": true, "[::1]:53": true,
		"192.0.2.1:53": false, "[2001:db8::1]:53": false, "localhost:53": false,
	} {
		if got := newTrust(DNSSECAuto, server).wants(); got != want {
			t.Errorf("%s: %v", server, got)
		}
	}
}

// fakeResolver answers from a function, without a socket, so that time can
// be faked.
type fakeResolver struct {
	mu    sync.Mutex
	root  answer
	count int
}

func (f *fakeResolver) ask(_ context.Context, q question) answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if q.qtype != dns.TypeSOA {
		return troubled(failed, "SERVFAIL")
	}
	f.count++
	return f.root
}

func (f *fakeResolver) set(a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.root = a
}

func TestSelfTestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Options{Server: "127.0.0.1:53"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		fake := &fakeResolver{root: answer{outcome: found, authentic: true}}
		r.asker = fake
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		step := func(d time.Duration, believed bool) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got, _ := r.believed(ctx); got != believed {
				t.Errorf("believed %v, want %v", got, believed)
			}
		}
		step(time.Second, true)
		r.routes.Put("example.com", composed{believed: true, net: r.net.Load()}, time.Now(), time.Now().Add(time.Hour))

		fake.set(troubled(unanswered, "timeout")) // says nothing of validation
		step(10*time.Minute, true)
		if _, f := r.Route(ctx, "example.com"); f != nil {
			t.Error("routes were forgotten for nothing")
		}
		fake.set(answer{outcome: found}) // no AD
		step(time.Minute, false)
		if _, f := r.Route(ctx, "example.com"); f == nil {
			t.Error("a route kept the old verdict")
		}
		fake.set(answer{outcome: found, authentic: true})
		step(11*time.Minute, true)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// gate holds look-ups up until it is opened.
type gate struct {
	asker
	asked, open chan struct{}
}

func (g gate) ask(ctx context.Context, q question) answer {
	select {
	case g.asked <- struct{}{}:
	default:
	}
	<-g.open
	return g.asker.ask(ctx, q)
}

// A route is used on the network that it was composed for, and not kept for
// another: not even when the look-ups were under way as it changed.
func TestNetworkChanges(t *testing.T) {
	z, r := world(t, Options{})
	z.MX("example.com", "mx.example.com", 10)
	z.A("mx.example.com", ip("198.41.0.4"))
	r.believed(t.Context())
	g := gate{r.asker, make(chan struct{}, 1), make(chan struct{})}
	r.asker = g

	r.net.Store(&network{v6: true})
	over := make(chan struct{})
	go func() {
		_, _ = r.Route(t.Context(), "example.com") // of either network
		close(over)
	}()
	<-g.asked
	r.net.Store(&network{v4: true, v6: true}) // IPv4 has come
	close(g.open)
	<-over
	if route, f := r.Route(t.Context(), "example.com"); f != nil {
		t.Errorf("with IPv4: %s", show(route, f))
	}
	r.net.Store(&network{v6: true})
	if _, f := r.Route(t.Context(), "example.com"); f == nil {
		t.Error("a route kept the addresses of another network")
	}
	r.net.Store(lookAround(nil))
	same := r.net.Load()
	if r.lookAgain(); r.net.Load() != same {
		t.Error("routes are forgotten for nothing")
	}
	r.net.Store(&network{})
	if r.lookAgain(); !r.net.Load().equal(same) {
		t.Error("the network was not looked at")
	}
}

func TestDialable(t *testing.T) {
	for text, want := range map[string]bool{
		"198.41.0.4": true, "2001:500::1": true, "64:ff9b::c629:4": true,
		"127.0.0.1": false, "10.1.2.3": false, "192.168.1.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false,
		"::1": false, "::": false, "fe80::1": false, "fd00::1": false, "ff02::1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false,
	} {
		if got := dialable(netip.MustParseAddr(text), false); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for text, want := range map[string]bool{"127.0.0.1": true, "::1": true, "0.0.0.0": false, "::": false, "224.0.0.1": false} {
		if got := dialable(netip.MustParseAddr(text), true); got != want {
			t.Errorf("%s, private allowed: %v", text, got)
		}
	}
}

func TestFamilyOfSourceAddress(t *testing.T) {
	if n := lookAround([]netip.Addr{ip("192.0.2.1")}); n.reachable(ip("2001:500::1")) && n.v4 {
		t.Error("IPv6 from an IPv4 source address")
	}
	if n := lookAround(nil); !n.local[ip("127.0.0.1")] || !n.reachable(ip("::1")) {
		t.Error("loopback is not ours")
	}
}
