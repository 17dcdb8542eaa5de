package submission

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/policy/account"
)

// proxyHeader is what a balancer says of a client.
func proxyHeader(version byte, client string) string {
	from, to := netip.MustParseAddrPort(client), "192.0.2.25:25"
	if from.Addr().Is6() {
		to = "[2001:db8::25]:25"
	}
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	b, err := h.Format()
	if err != nil {
		panic(err)
	}
	return string(b)
}

// local is the header of a balancer's own connection.
const local = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

func behindBalancer(o *Options) {
	o.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
}

// The client is the one that the header names: in what is accepted, in the log, for
// the bounds of an address and for trusted networks; over TLS, too.
func TestProxyHeaderNamesTheClient(t *testing.T) {
	for name, header := range map[string]string{
		"v1":         proxyHeader(1, "198.51.100.7:4321"),
		"v2":         proxyHeader(2, "198.51.100.7:4321"),
		"v1, mapped": "PROXY TCP6 ::ffff:198.51.100.7 ::ffff:192.0.2.25 4321 25\r\n",
		"v2, TLVs":   withTLVs(proxyHeader(2, "198.51.100.7:4321"), 1000),
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			w := startLogging(t, zap.New(core), behindBalancer)
			clear := w.raw(w.srv.Addrs()[0])
			clear.send(header)
			clear.expect("220")
			clear.cmd("250", "EHLO client.example")
			clear.cmd("220", "STARTTLS")
			clear.secure()
			clear.cmd("250", "EHLO client.example")
			clear.cmd("535", "AUTH PLAIN "+plainResponse("apikey", account.NewSecret()))

			secured := w.raw(w.srv.AddrsTLS()[0])
			secured.send(header)
			secured.secure()
			secured.expect("220")
			secured.cmd("250", "EHLO client.example")
			secured.auth()
			secured.data(simple)
			got := w.in.all()[0]
			if got.m.Client != "198.51.100.7" || !strings.Contains(got.body, "Received: from client.example ([198.51.100.7])") {
				t.Errorf("client %s\n%s", got.m.Client, got.body)
			}
			failed := logs.FilterMessageSnippet("authentication failed").All()
			if len(failed) != 1 || failed[0].ContextMap()["client"] != "198.51.100.7" {
				t.Errorf("logged %v", failed)
			}
			for ip, want := range map[string]int{"198.51.100.7": 1, "127.0.0.1": 0} {
				if n, _ := w.srv.failures.Counts(netip.MustParseAddr(ip)); n != want {
					t.Errorf("%d failures of %s are counted", n, ip)
				}
			}
		})
	}
}

// withTLVs adds n octets to a header of version 2.
func withTLVs(header string, n int) string {
	b := []byte(header)
	size := int(b[14])<<8 + int(b[15]) + n
	b[14], b[15] = byte(size>>8), byte(size)
	tlv := append([]byte{0xe0, byte((n - 3) >> 8), byte(n - 3)}, make([]byte, n-3)...)
	return string(append(b, tlv...))
}

// A header may come in pieces, and a client need not wait for the greeting.
func TestProxyHeaderInPieces(t *testing.T) {
	w := start(t, behindBalancer)
	for _, version := range []byte{1, 2} {
		c := w.raw(w.srv.Addrs()[0])
		header := proxyHeader(version, "[2001:db8::7]:4321")
		for i := range len(header) {
			c.send(header[i : i+1])
			time.Sleep(time.Millisecond)
		}
		c.send("EHLO client.example\r\n" + strings.Repeat("NOOP\r\n", 90))
		c.expect("220")
		c.expect("250-")
		for range 90 {
			c.expect("250 2.0.0")
		}
		c.auth()
		c.data(simple)
	}
	for _, got := range w.in.all() {
		if got.m.Client != "2001:db8::7" {
			t.Errorf("client %s", got.m.Client)
		}
	}
}

// A balancer that speaks for itself is what its address says: most often a stranger,
// for a health check.
func TestProxyHealthChecks(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	w := startLogging(t, zap.New(core), behindBalancer)
	for _, header := range []string{local, "PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"} {
		c := w.raw(w.srv.Addrs()[0])
		c.send(header)
		c.expect("220")
		c.cmd("250", "EHLO client.example")
		c.auth()
		c.data(simple)
	}
	for _, got := range w.in.all() {
		if got.m.Client != "127.0.0.1" {
			t.Errorf("client %s", got.m.Client)
		}
	}
	w.raw(w.srv.Addrs()[0]).Close() // to see that the port is open
	waitFor(t, "it is counted", func() bool { return w.counted("proxy_header") == 1 })
	if logs.Len() != 0 {
		t.Errorf("logged %v", logs.All())
	}
}

// From a listed balancer a header is required, and soon; who sends none hears nothing.
// That is logged once a minute.
func TestProxyHeaderIsRequired(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.WarnLevel)
	w := startLogging(t, zap.New(core), behindBalancer)
	bad := []string{
		"EHLO client.example\r\n", "PROXY TCP4 198.51.100.7\r\n", "PROXY TCP4 a b 1 2\r\n", "PROXYTCP4\r\n",
		"PROXY TCP4 198.51.100.7 192.0.2.25 4321 25" + strings.Repeat(" ", 200) + "\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x02ab", "\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x00", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c" + strings.Repeat("\x01", 12),   // UDP
		"\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("\x01", 0xd8), // a Unix socket
		"\x16\x03\x01\x02\x00\x01",
		"", "PROXY TCP4 198.51.100.7 ", "\r\n\r\n", // and no more
	}
	var all []*client
	for _, header := range bad {
		for _, addr := range []net.Addr{w.srv.Addrs()[0], w.srv.AddrsTLS()[0]} {
			c := w.raw(addr)
			c.send(header)
			all = append(all, c)
		}
	}
	// Meanwhile others come in.
	for range 20 {
		c := w.raw(w.srv.Addrs()[0])
		c.send(proxyHeader(2, "198.51.100.7:4321"))
		c.expect("220")
		c.cmd("221", "QUIT")
	}
	for i, c := range all {
		if rest, err := io.ReadAll(c.r); len(rest) > 0 || isTimeout(err) {
			t.Errorf("%q: %q %v", bad[i/2], rest, err)
		}
	}
	if n := w.counted("proxy_header"); int(n) != len(all) {
		t.Errorf("%v of %d are counted", n, len(all))
	}
	if logs.Len() != 1 || logs.All()[0].ContextMap()["balancer"] != "127.0.0.1" {
		t.Errorf("logged %v", logs.All())
	}
}

// From anywhere else a header is no SMTP, and names nobody.
func TestProxyHeaderFromElsewhere(t *testing.T) {
	w := start(t, behindBalancer)
	for _, version := range []byte{1, 2} {
		c := w.from("127.0.0.2")
		c.expect("220")
		c.send(proxyHeader(version, "198.51.100.7:4321"))
		if got := c.reply(); got[0] != '5' {
			t.Errorf("%q", got)
		}
	}
	c := w.from("127.0.0.2")
	c.expect("220")
	c.cmd("501 5.5.2", strings.TrimSpace(proxyHeader(1, "198.51.100.7:4321")))
	c.cmd("250", "EHLO client.example")
	c.auth()
	c.data(simple)
	if got := w.in.all()[0].m.Client; got != "127.0.0.2" {
		t.Errorf("client %s", got)
	}
	none := start(t, nil) // where no balancer is listed, nobody is one
	c = none.dial()
	c.cmd("501 5.5.2", strings.TrimSpace(proxyHeader(1, "198.51.100.7:4321")))
}

// Behind a balancer, too, one client has its share of the places, and others theirs.
func TestPlacesBehindABalancer(t *testing.T) {
	w := start(t, func(o *Options) {
		behindBalancer(o)
		o.MaxStrangersPerIP, o.MaxPerIP = 2, 3
		o.Trusted = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("127.0.0.0/8")}
	})
	comes := func(from string) *client {
		t.Helper()
		c := w.raw(w.srv.Addrs()[0])
		c.send(proxyHeader(2, from+":4321"))
		return c
	}
	for _, from := range []string{"198.51.100.7", "198.51.100.8"} {
		comes(from).expect("220")
		comes(from).expect("220")
		comes(from).expect("421 4.7.0")
	}
	for range 3 {
		c := comes("203.0.113.1")
		c.expect("220")
		c.cmd("250", "EHLO client.example")
		c.cmd("250", "MAIL FROM:<a@sender.example>")
	}
	comes("203.0.113.1").expect("421 4.3.2")
	// The network of the balancer is trusted; its clients are not.
	c := comes("198.51.100.9")
	c.expect("220")
	c.cmd("250", "EHLO client.example")
	c.cmd("530", "MAIL FROM:<a@sender.example>")
}

// A server that stops does not wait for balancers.
func TestStoppingWithoutProxyHeaders(t *testing.T) {
	w := start(t, behindBalancer)
	for range 10 {
		w.raw(w.srv.Addrs()[0])
	}
	waitFor(t, "all are waited for", func() bool { return w.taken() == 10 })
	begun := time.Now()
	w.stop()
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	w.done <- nil
	if took := time.Since(begun); took > proxyTime/2 {
		t.Errorf("stopped after %v", took)
	}
}

// Whatever a balancer sends, it names a client, or itself, or is refused; and what
// follows a good header is left to be read.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte(proxyHeader(1, "198.51.100.7:4321")), byte(3))
	f.Add([]byte(proxyHeader(2, "198.51.100.7:4321")), byte(1))
	f.Add([]byte(proxyHeader(2, "[2001:db8::7]:4321")), byte(9))
	f.Add([]byte(withTLVs(proxyHeader(2, "198.51.100.7:4321"), 20)), byte(200))
	f.Add([]byte(local), byte(2))
	f.Add([]byte("PROXY UNKNOWN\r\n"), byte(0))
	f.Add([]byte("PROXY TCP6 ::ffff:198.51.100.7 fe80::1%eth0 1 2\r\n"), byte(0))
	const after = "EHLO client.example\r\n"
	f.Fuzz(func(t *testing.T, header []byte, step byte) {
		in := &pieces{b: append(bytes.Clone(header), after...), step: int(step)%16 + 1}
		r := bufio.NewReaderSize(in, proxyBuffer)
		ip, err := proxyClient(r)
		if err != nil {
			if ip.IsValid() {
				t.Fatalf("%v and %v", ip, err)
			}
			return
		}
		if ip.IsValid() && (ip.Is4In6() || ip.Zone() != "") {
			t.Fatalf("client %v", ip)
		}
		rest, _ := io.ReadAll(r)
		if !strings.HasSuffix(after, string(rest)) && !bytes.HasSuffix(append(bytes.Clone(header), after...), rest) {
			t.Fatalf("%s left %q", hex.EncodeToString(header), rest)
		}
	})
}

// pieces is read step octets at a time.
type pieces struct {
	b    []byte
	step int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.b[:min(p.step, len(p.b))])
	p.b = p.b[n:]
	return n, nil
}
