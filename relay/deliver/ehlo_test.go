package deliver

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay/relaytest"
)

// TestNameInEHLO: a name that is not fully qualified is none: EHLO then gives the
// address that the connection comes from, in clear, inside TLS and in HELO.
func TestNameInEHLO(t *testing.T) {
	w := relaytest.Start(t)
	old := relaytest.Script{NoTLS: true, EHLO: relaytest.Reply{Code: 502}}
	from := func(a string) func(*Options) {
		return func(o *Options) { o.SourceAddresses = []netip.Addr{netip.MustParseAddr(a)} }
	}
	for _, c := range []struct {
		hostname, want string
		script         relaytest.Script
		change         func(*Options)
	}{
		{"relay.sender.test", "relay.sender.test", relaytest.Script{}, nil},
		{"Relay.Sender.test.", "relay.sender.test", old, nil},
		{"", "[127.0.0.1]", relaytest.Script{}, nil},
		{"localhost", "[127.0.0.1]", relaytest.Script{}, nil},
		{"relay-01", "[127.0.0.1]", old, nil},
		{"relay-01", "[127.0.0.7]", relaytest.Script{}, from("127.0.0.7")},
	} {
		h := w.Host(t, "mx1.example.test", c.script)
		e := engine(t, w, routeTo(h), func(o *Options) { o.Hostname = c.hostname }, func(o *Options) {
			if c.change != nil {
				c.change(o)
			}
		})
		for range 2 { // the second time on the same session, where it is kept
			e.Deliver(context.Background(), jobTo(t, modeO))
		}
		var names []string
		for _, x := range h.Sessions()[0].Commands {
			if verb, name, _ := strings.Cut(x.Line, " "); verb == "EHLO" || verb == "HELO" {
				names = append(names, name)
			}
		}
		other := func(name string) bool { return name != c.want }
		if len(names) < 2 || slices.ContainsFunc(names, other) || h.Accepted() != 2 {
			t.Errorf("%q: said %v, want %s; %d messages", c.hostname, names, c.want, h.Accepted())
		}
	}
}

// TestNameInEHLO6 is the same over IPv6.
func TestNameInEHLO6(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	defer ln.Close()
	said := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.Write([]byte("220 mx\r\n"))
		b := make([]byte, 100)
		n, _ := c.Read(b)
		said <- string(b[:n])
		c.Write([]byte("450 later\r\n"))
	}()
	route := routeTo()
	route.Hosts = append(route.Hosts, hostAt("mx1.example.test", ln.Addr().(*net.TCPAddr).AddrPort()))
	e := engine(t, relaytest.Start(t), route, func(o *Options) { o.Hostname = "localhost" })
	deliverOne(t, e, modeO, "defer")
	if got := <-said; got != "EHLO [IPv6:::1]\r\n" {
		t.Errorf("%q", got)
	}
}

// TestRefusedNameIsTold: the operator is told which host refuses which name, and
// not on every connection.
func TestRefusedNameIsTold(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	w := relaytest.Start(t)
	refuses := relaytest.Script{EHLO: relaytest.Reply{Code: 504, Text: "5.5.2 <relay>: need fully-qualified hostname"}}
	a, b := w.Host(t, "mx1.example.test", refuses), w.Host(t, "mx2.example.test", refuses)
	e := engine(t, w, routeTo(a, b), func(o *Options) { o.Hostname = "relay" })
	e.log = zap.New(core)
	for _, s := range []policy.Sender{modeO, modeT, modeV} {
		r := deliverOne(t, e, s, "defer")
		if !shown(r, "A5n", policy.Unreachable, events.NameRefused) || r.History.Violated() {
			t.Errorf("%+v", r)
		}
	}
	if logs.Len() != 2 {
		t.Fatalf("%d lines for two hosts", logs.Len())
	}
	fields := logs.All()[0].ContextMap()
	if fields["host"] != "mx1.example.test" || fields["name"] != "[127.0.0.1]" || !strings.Contains(fields["reply"].(string), "504") {
		t.Errorf("%v", fields)
	}
	if a.LeakedInClear() || b.LeakedInClear() {
		t.Error("sent in clear")
	}
}
