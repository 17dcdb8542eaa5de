package webhook

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
)

// Which dialled addresses arrive at a listener, on a machine that has 192.0.2.1 and
// 2001:db8::1 beside its loopback addresses.
func TestReaches(t *testing.T) {
	ofThisMachine := func(a netip.Addr) bool {
		return a.IsLoopback() || a == netip.MustParseAddr("192.0.2.1") || a == netip.MustParseAddr("2001:db8::1")
	}
	for _, c := range []struct {
		listener string
		arrive   []string
		do       []string // not
	}{
		{"127.0.0.1:8026",
			[]string{"127.0.0.1:8026", "[::ffff:127.0.0.1]:8026", "0.0.0.0:8026", "[::]:8026", "[::ffff:0.0.0.0]:8026"},
			[]string{"127.0.0.1:8025", "127.0.0.2:8026", "192.0.2.1:8026", "[::1]:8026"}},
		{"0.0.0.0:8026",
			[]string{"127.0.0.1:8026", "127.0.0.2:8026", "[::ffff:127.9.9.9]:8026", "192.0.2.1:8026", "[::ffff:192.0.2.1]:8026", "0.0.0.0:8026", "[::]:8026"},
			[]string{"192.0.2.2:8026", "127.0.0.1:443"}},
		{"[::]:8026",
			[]string{"127.0.0.1:8026", "[::1]:8026", "[2001:db8::1]:8026", "[2001:db8::1%eth0]:8026", "192.0.2.1:8026"},
			[]string{"[2001:db8::2]:8026"}},
		{"192.0.2.1:8025", []string{"192.0.2.1:8025"}, []string{"127.0.0.1:8025", "0.0.0.0:8025"}},
	} {
		listener := netip.MustParseAddrPort(c.listener)
		for _, at := range c.arrive {
			if !reaches(netip.MustParseAddrPort(at), listener, ofThisMachine) {
				t.Errorf("%s does not reach %s", at, listener)
			}
		}
		for _, at := range c.do {
			if reaches(netip.MustParseAddrPort(at), listener, ofThisMachine) {
				t.Errorf("%s reaches %s", at, listener)
			}
		}
	}
}

// No spelling of a listener's address, no name of it and no redirect to it leads
// there, as a webhook or as a token URL, although private addresses are permitted.
func TestOwnListenersAreNoTargets(t *testing.T) {
	for _, bound := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		var reached atomic.Bool
		l, err := net.Listen("tcp", bound)
		if err != nil && bound == "[::]:0" {
			t.Log("no IPv6 here: ", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		own := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) })}}
		own.Start()
		defer own.Close()
		at := l.Addr().(*net.TCPAddr).AddrPort()
		redirect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), at.Port()).String(), http.StatusTemporaryRedirect)
		}))
		defer redirect.Close()

		s := New(Options{AllowInsecure: true}, newMemory(), zap.NewNop(), nil)
		s.Exclude([]netip.AddrPort{at})
		defer s.client.CloseIdleConnections()
		hosts := []string{"127.0.0.1", "localhost", "LOCALHOST.", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "0"}
		if at.Addr().IsUnspecified() {
			hosts = append(hosts, "127.0.0.2", "[::1]")
			all, _ := net.InterfaceAddrs()
			for _, a := range all {
				if prefix, err := netip.ParsePrefix(a.String()); err == nil && !prefix.Addr().IsLinkLocalUnicast() {
					hosts = append(hosts, strings.TrimSuffix(netip.AddrPortFrom(prefix.Addr(), 1).String(), ":1"))
				}
			}
		}
		targets := []string{redirect.URL}
		for _, h := range hosts {
			targets = append(targets, fmt.Sprintf("http://%s:%d", h, at.Port()))
		}
		for _, target := range targets {
			for _, e := range []Endpoint{{URL: target}, {URL: "http://127.0.0.1:1/", OAuthTokenURL: target, OAuthClientID: "x", OAuthClientSecret: "x"}} {
				if err := s.Test(context.Background(), e); err == nil || reached.Load() {
					t.Errorf("listener at %s: %+v reaches it: %v", bound, e, err)
				}
			}
		}
		// Nothing but the listeners is refused.
		s.Exclude(nil)
		if err := s.Test(context.Background(), Endpoint{URL: targets[1]}); err != nil || !reached.Load() {
			t.Errorf("%s is reached by nobody: %v", targets[1], err)
		}
	}
}
