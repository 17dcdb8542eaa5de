package resolve

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

// world is a zone and a resolver that asks it.
func world(t testing.TB, o Options) (*relaytest.Zone, *Resolver) {
	t.Helper()
	z, err := relaytest.NewZone(netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	o.Server = z.Addr()
	r, err := New(o, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The same on every machine, whatever its routes.
	r.net.Store(&network{v4: true, v6: true, local: map[netip.Addr]bool{ip("203.0.113.9"): true}})
	return z, r
}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

// show writes a route as one line per host.
func show(route Route, f *relay.Failure) string {
	var b strings.Builder
	if f != nil {
		fmt.Fprintf(&b, "%s %s %s %s\n", f.Class, f.Reach, f.Status, f.Reason)
	}
	for _, h := range route.Hosts {
		b.WriteString(h.Name)
		for _, a := range h.Addrs {
			fmt.Fprintf(&b, " %s", a)
		}
		if h.Failure != nil {
			fmt.Fprintf(&b, " %s %s", h.Failure.Reach, h.Failure.Reason)
		}
		b.WriteString("\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func TestRoute(t *testing.T) {
	for _, c := range []struct {
		name  string
		zone  func(*relaytest.Zone)
		o     Options
		dest  string // default example.com
		want  string
		words string // in the reply
	}{
		{name: "in order of preference", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx2.example.com", 20)
			z.MX("example.com", "MX1.example.com", 10)
			z.A("mx1.example.com", ip("198.41.0.4"), ip("198.41.0.5"), ip("2001:500::1"))
			z.A("mx2.example.com", ip("198.41.0.6"))
		}, want: "mx1.example.com [2001:500::1]:25 198.41.0.4:25 198.41.0.5:25\nmx2.example.com 198.41.0.6:25"},
		{name: "port", o: Options{Port: 2525}, zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.A("mx.example.com", ip("198.41.0.4"))
		}, want: "mx.example.com 198.41.0.4:2525"},
		{name: "a host named twice", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.MX("example.com", "mx.example.com", 20)
			z.A("mx.example.com", ip("198.41.0.4"))
		}, want: "mx.example.com 198.41.0.4:25"},
		{name: "implicit MX", zone: func(z *relaytest.Zone) { z.A("example.com", ip("198.41.0.4")) },
			want: "example.com 198.41.0.4:25"},
		{name: "no such domain", zone: func(*relaytest.Zone) {},
			want: "permanent destination 5.1.2 no_such_domain", words: "no such domain: example.com"},
		{name: "neither MX nor address", zone: func(z *relaytest.Zone) { z.TXT("example.com", "v=spf1 -all") },
			want: "permanent destination 5.4.4 no_mail_host"},
		{name: "null MX", zone: func(z *relaytest.Zone) { z.NullMX("example.com"); z.A("example.com", ip("198.41.0.4")) },
			want: "permanent destination 5.1.10 null_mx", words: "556 5.1.10 example.com does not accept mail"},
		{name: "null MX among others", zone: func(z *relaytest.Zone) {
			z.NullMX("example.com")
			z.MX("example.com", "mx.example.com", 10)
			z.A("mx.example.com", ip("198.41.0.4"))
		}, want: "mx.example.com 198.41.0.4:25"},
		{name: "MX without address, and no fall back", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.A("example.com", ip("198.41.0.4"))
		}, want: "temporary destination 4.4.4 host_address\nmx.example.com host host_address"},
		{name: "one of two without address", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx1.example.com", 10)
			z.MX("example.com", "mx2.example.com", 20)
			z.A("mx2.example.com", ip("198.41.0.4"))
		}, want: "mx1.example.com host host_address\nmx2.example.com 198.41.0.4:25"},
		{name: "SERVFAIL is not 'no MX'", zone: func(z *relaytest.Zone) {
			z.A("example.com", ip("198.41.0.4"))
			z.Trouble("example.com", dns.TypeMX, relaytest.Trouble{Rcode: dns.RcodeServerFailure})
		}, want: "temporary destination 4.4.3 dns_failed", words: "SERVFAIL"},
		{name: "REFUSED is not 'no MX'", zone: func(z *relaytest.Zone) {
			z.A("example.com", ip("198.41.0.4"))
			z.Trouble("example.com", dns.TypeMX, relaytest.Trouble{Rcode: dns.RcodeRefused})
		}, want: "temporary destination 4.4.3 dns_failed"},
		{name: "SERVFAIL for the host", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.Trouble("mx.example.com", 0, relaytest.Trouble{Rcode: dns.RcodeServerFailure})
		}, want: "temporary destination 4.4.3 dns_failed\nmx.example.com host dns_failed"},
		{name: "SERVFAIL for AAAA alone", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.A("mx.example.com", ip("198.41.0.4"))
			z.Trouble("mx.example.com", dns.TypeAAAA, relaytest.Trouble{Rcode: dns.RcodeServerFailure})
		}, want: "mx.example.com 198.41.0.4:25"},
		{name: "SERVFAIL for an implicit MX", zone: func(z *relaytest.Zone) {
			z.TXT("example.com", "here")
			z.Trouble("example.com", dns.TypeA, relaytest.Trouble{Rcode: dns.RcodeServerFailure})
		}, want: "temporary destination 4.4.3 dns_failed\nexample.com host dns_failed"},
		{name: "private address", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx1.example.com", 10)
			z.MX("example.com", "mx2.example.com", 20)
			z.A("mx1.example.com", ip("127.0.0.1"), ip("10.0.0.1"), ip("::1"))
			z.A("mx2.example.com", ip("10.0.0.1"), ip("198.41.0.4"))
		}, want: "mx1.example.com host host_private\nmx2.example.com 198.41.0.4:25"},
		{name: "private address allowed", o: Options{AllowPrivate: true}, zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.A("mx.example.com", ip("127.0.0.1"), ip("0.0.0.0"))
		}, want: "mx.example.com 127.0.0.1:25"},
		{name: "address in the MX record", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "198.41.0.4", 10)
			z.MX("example.com", "mx.example.com", 20)
			z.A("mx.example.com", ip("198.41.0.4"))
		}, want: "198.41.0.4 host host_address\nmx.example.com 198.41.0.4:25"},
		{name: "alias of the domain", zone: func(z *relaytest.Zone) {
			z.CNAME("example.com", "real.net")
			z.MX("real.net", "mx.real.net", 10)
			z.A("mx.real.net", ip("198.41.0.4"))
		}, want: "mx.real.net 198.41.0.4:25"},
		{name: "alias that the resolver does not follow", zone: func(z *relaytest.Zone) {
			z.CNAME("example.com", "real.net")
			z.Trouble("example.com", dns.TypeMX, relaytest.Trouble{NoChase: true})
			z.MX("real.net", "mx.real.net", 10)
			z.A("mx.real.net", ip("198.41.0.4"))
		}, want: "mx.real.net 198.41.0.4:25"},
		{name: "aliases that never end", zone: func(z *relaytest.Zone) {
			z.CNAME("example.com", "b.example.com")
			z.CNAME("b.example.com", "example.com")
			z.Trouble("example.com", 0, relaytest.Trouble{NoChase: true})
			z.Trouble("b.example.com", 0, relaytest.Trouble{NoChase: true})
		}, want: "temporary destination 4.4.3 dns_failed", words: "too long"},
		{name: "loop of aliases", zone: func(z *relaytest.Zone) { z.CNAME("example.com", "example.com") },
			want: "temporary destination 4.4.3 dns_failed"},
		{name: "alias as MX target keeps its name", zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.CNAME("mx.example.com", "host.provider.net")
			z.A("host.provider.net", ip("198.41.0.4"))
		}, want: "mx.example.com 198.41.0.4:25"},
		{name: "literal", zone: func(*relaytest.Zone) {}, dest: "[198.41.0.4]", want: "[198.41.0.4] 198.41.0.4:25"},
		{name: "IPv6 literal", zone: func(*relaytest.Zone) {}, dest: "[2001:500::1]", want: "[2001:500::1] [2001:500::1]:25"},
		{name: "private literal", zone: func(*relaytest.Zone) {}, dest: "[127.0.0.1]", want: "permanent destination 5.4.4 host_private"},
		{name: "nonsense", zone: func(*relaytest.Zone) {}, dest: "..", want: "temporary destination 4.3.0 internal"},
		{name: "route to a name", o: Options{Routes: map[string]string{"Example.com": "smart.net:587"}}, zone: func(z *relaytest.Zone) {
			z.MX("example.com", "mx.example.com", 10)
			z.A("smart.net", ip("10.0.0.1"))
		}, want: "smart.net 10.0.0.1:587"},
		{name: "route to an address", o: Options{Routes: map[string]string{"*": "127.0.0.1:2526"}}, zone: func(*relaytest.Zone) {},
			want: "[127.0.0.1] 127.0.0.1:2526"},
		{name: "a domain's route before the one for all", o: Options{Routes: map[string]string{"*": "127.0.0.1:1", "example.com": "127.0.0.1:2"}},
			zone: func(*relaytest.Zone) {}, want: "[127.0.0.1] 127.0.0.1:2"},
		{name: "route to a name without address", o: Options{Routes: map[string]string{"*": "smart.net:25"}}, zone: func(*relaytest.Zone) {},
			want: "temporary destination 4.4.4 host_address\nsmart.net host host_address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			z, r := world(t, c.o)
			c.zone(z)
			if c.dest == "" {
				c.dest = "example.com"
			}
			route, f := r.Route(t.Context(), c.dest)
			if got := show(route, f); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if f != nil && !strings.Contains(f.Reply.String(), c.words) {
				t.Errorf("reply %q", f.Reply)
			}
			again, f2 := r.Route(t.Context(), c.dest)
			if show(again, f2) != show(route, f) {
				t.Errorf("from the cache:\n%s", show(again, f2))
			}
		})
	}
}

func TestMailLoop(t *testing.T) {
	at := netip.MustParseAddrPort
	zone := func(z *relaytest.Zone) {
		for i, h := range []string{"mx1", "mx2", "relay", "mx4"} {
			z.MX("example.com", h+".example.com", uint16([]int{10, 20, 20, 30}[i]))
		}
		z.A("mx1.example.com", ip("198.41.0.1"))
		z.A("mx2.example.com", ip("198.41.0.2"))
		z.A("relay.example.com", ip("203.0.113.9"))
		z.A("mx4.example.com", ip("198.41.0.4"))
		z.MX("ours.test", "relay.example.com", 10)
		z.A("self.test", ip("203.0.113.9"))
	}
	const short = "mx1.example.com 198.41.0.1:25"
	const loop = "permanent destination 5.4.6 mail_loop"
	for _, c := range []struct {
		name, dest string
		o          Options
		want       string
	}{
		{"by name", "example.com", Options{Hostname: "Relay.Example.com"}, short},
		{"by name, best", "ours.test", Options{Hostname: "relay.example.com"}, loop},
		{"by address", "example.com", Options{Listening: []netip.AddrPort{at("203.0.113.9:25")}}, short},
		{"by any address of ours", "ours.test", Options{Listening: []netip.AddrPort{at("0.0.0.0:25")}}, loop},
		{"implicit MX", "self.test", Options{Listening: []netip.AddrPort{at("[::]:25")}}, loop},
		{"literal", "[203.0.113.9]", Options{Listening: []netip.AddrPort{at("0.0.0.0:25")}}, loop},
		{"our name, but another program's port", "ours.test",
			Options{Hostname: "relay.example.com", Listening: []netip.AddrPort{at("127.0.0.1:2525")}},
			"relay.example.com 203.0.113.9:25"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.AllowPrivate = true // 203.0.113.0/24 is for documentation
			z, r := world(t, c.o)
			zone(z)
			if got := show(r.Route(t.Context(), c.dest)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestFacts(t *testing.T) {
	z, r := world(t, Options{Routes: map[string]string{"routed.test": "smart.net:25"}})
	z.MX("xn--bcher-kva.example", "mx.example.net", 10)
	z.CNAME("mx.example.net", "alias.example.net")
	z.A("alias.example.net", ip("198.41.0.4"))
	z.A("smart.net", ip("198.41.0.4"))
	for _, c := range []struct {
		dest       string
		names, sni string
		recipient  string
		override   bool
	}{
		{"xn--bcher-kva.example", "[mx.example.net xn--bcher-kva.example]", "mx.example.net", "xn--bcher-kva.example", false},
		{"[198.41.0.4]", "[198.41.0.4]", "", "", false},
		{"routed.test", "[smart.net]", "smart.net", "", true},
	} {
		route, f := r.Route(t.Context(), c.dest)
		if f != nil {
			t.Errorf("%s: %v", c.dest, f)
			continue
		}
		h := route.Hosts[0]
		d := policy.Demands{}.On(h.Facts)
		if fmt.Sprint(d.Names) != c.names || h.SNI != c.sni || route.Recipient.String() != c.recipient || h.RouteOverride != c.override {
			t.Errorf("%s: names %v, SNI %q, recipient %q, override %v", c.dest, d.Names, h.SNI, route.Recipient, h.RouteOverride)
		}
	}
}

func TestBounds(t *testing.T) {
	z, r := world(t, Options{})
	for i := range 12 {
		host := fmt.Sprintf("mx%02d.example.com", i)
		z.MX("example.com", host, uint16(i))
		z.A(host, ip(fmt.Sprintf("198.41.%d.1", i)), ip(fmt.Sprintf("198.41.%d.2", i)), ip(fmt.Sprintf("198.41.%d.3", i)))
	}
	route, f := r.Route(t.Context(), "example.com")
	if f != nil {
		t.Fatal(f)
	}
	addrs, left := 0, 0
	for _, h := range route.Hosts {
		addrs += len(h.Addrs)
		if h.Failure != nil && h.Failure.Reason == untried.reason {
			left++
		}
	}
	// Six hosts with three addresses, one with two, five untried.
	if len(route.Hosts) != 12 || addrs != maxAddresses || left != 5 {
		t.Errorf("%d hosts, %d addresses, %d untried", len(route.Hosts), addrs, left)
	}
	if n := z.Queries("mx11.example.com", 0); n != 0 {
		t.Errorf("asked %d times for a host beyond the bound", n)
	}
}

func TestFamilies(t *testing.T) {
	z, r := world(t, Options{})
	z.MX("both.test", "both.example.com", 10)
	z.MX("six.test", "six.example.com", 10)
	z.A("both.example.com", ip("198.41.0.4"), ip("2001:500::1"))
	z.A("six.example.com", ip("2001:500::1"))
	r.net.Store(&network{v4: true})
	if got := show(r.Route(t.Context(), "both.test")); got != "both.example.com 198.41.0.4:25" {
		t.Error(got)
	}
	route, f := r.Route(t.Context(), "six.test")
	if got := show(route, f); got != "temporary destination 4.4.4 host_address\nsix.example.com host host_address" {
		t.Error(got)
	}
}

func TestEqualsAreShuffled(t *testing.T) {
	sick := ""
	z, r := world(t, Options{Unwell: func(h string) bool { return h == sick }})
	for _, h := range []string{"a", "b", "c"} {
		z.MX("example.com", h+".example.com", 10)
		z.A(h+".example.com", ip("198.41.0.4"))
	}
	z.MX("example.com", "last.example.com", 20)
	z.A("last.example.com", ip("198.41.0.4"))
	first := map[string]int{}
	for i := range 400 {
		if i == 200 {
			sick = "b.example.com"
		}
		route, _ := r.Route(t.Context(), "example.com")
		if route.Hosts[3].Name != "last.example.com" {
			t.Fatal(show(route, nil))
		}
		if i < 200 {
			first[route.Hosts[0].Name]++
		} else if route.Hosts[2].Name != sick {
			t.Fatalf("the sick one is not last of its equals:\n%s", show(route, nil))
		}
	}
	if len(first) != 3 {
		t.Errorf("first were %v", first)
	}
}

func TestCutShort(t *testing.T) {
	z, r := world(t, Options{})
	z.Trouble("example.com", 0, relaytest.Trouble{Silent: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := show(r.Route(ctx, "example.com")); got != "temporary destination 4.4.3 dns_failed" {
		t.Error(got)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, o := range []Options{
		{Server: "127.0.0.1:53", DNSSEC: "maybe"},
		{Server: "127.0.0.1"},
		{Server: "127.0.0.1:53", Routes: map[string]string{"*": "host-without-port"}},
		{Server: "127.0.0.1:53", Routes: map[string]string{"not a domain": "127.0.0.1:25"}},
		{Server: "127.0.0.1:53", Routes: map[string]string{"*": "127.0.0.1:0"}},
		{Server: "127.0.0.1:53", Routes: map[string]string{"*": "b@d:25"}},
	} {
		if _, err := New(o, nil); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func BenchmarkCachedRoute(b *testing.B) {
	z, r := world(b, Options{})
	for _, h := range []string{"a", "b", "c"} {
		z.MX("example.com", h+".example.com", 10)
		z.A(h+".example.com", ip("198.41.0.4"))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, f := r.Route(b.Context(), "example.com"); f != nil {
			b.Fatal(f)
		}
	}
}
