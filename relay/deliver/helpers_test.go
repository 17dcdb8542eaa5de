package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/domain"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
	"tlsrelay/relay/resolve"
)

// router gives every destination the same route.
type router struct {
	route   resolve.Route
	failure *relay.Failure
}

func (r router) Route(context.Context, string) (resolve.Route, *relay.Failure) {
	return r.route, r.failure
}

// routeTo is the route of example.test to hosts, in that order.
func routeTo(hosts ...*relaytest.Host) resolve.Route {
	r := resolve.Route{Recipient: domain.MustParse("example.test")}
	for _, h := range hosts {
		r.Hosts = append(r.Hosts, hostAt(h.Name(), h.Addr()))
	}
	return r
}

func hostAt(name string, addrs ...netip.AddrPort) resolve.Host {
	return resolve.Host{
		Name: name, SNI: name, Addrs: addrs,
		Facts: policy.Facts{Host: domain.MustParse(name), Recipient: domain.MustParse("example.test")},
	}
}

// body is a body in memory.
type body []byte

func (b body) NewReader() io.Reader { return bytes.NewReader(b) }
func (b body) Size() int64          { return int64(len(b)) }
func (b body) Close() error         { return nil }

const letter = "Subject: greetings\r\n\r\nHello.\r\n..dots\r\n.\r\nBye.\r\n"

func address(t testing.TB, s string) relay.Address {
	t.Helper()
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		t.Fatal(s, err)
	}
	return a
}

// jobTo is a message for recipients at example.test.
func jobTo(t testing.TB, s policy.Sender, rcpts ...string) Job {
	t.Helper()
	if len(rcpts) == 0 {
		rcpts = []string{"bob@example.test"}
	}
	m := relay.Message{ID: relay.NewMessageID(time.Now()), Accepted: time.Now(), From: address(t, "alice@sender.test"), Size: int64(len(letter))}
	d := relay.Delivery{Key: relay.DeliveryKey{Message: m.ID}, Lane: relay.Lane{Destination: "example.test"}, Attempts: 1}
	for i, r := range rcpts {
		d.Recipients = append(d.Recipients, relay.Recipient{Address: address(t, r), Index: i})
	}
	return Job{Message: m, Delivery: d, Sender: s, Body: body(letter)}
}

// propertyJob is jobTo where there is no testing.TB at hand.
func propertyJob(s policy.Sender) Job {
	from, _ := relay.ParseAddress("alice@sender.test", false)
	to, _ := relay.ParseAddress("bob@example.test", false)
	return Job{
		Message:  relay.Message{From: from},
		Delivery: relay.Delivery{Lane: relay.Lane{Destination: "example.test"}, Recipients: []relay.Recipient{{Address: to}}},
		Sender:   s, Body: body(letter),
	}
}

// The settings of the columns.
var (
	modeO = policy.Sender{}
	modeT = policy.Sender{Account: policy.Settings{RequireTLS: true}}
	modeV = policy.Sender{Account: policy.Settings{RequireValidCert: true}}
)

func floor(v policy.Version) policy.Sender {
	return policy.Sender{Account: policy.Settings{RequireTLS: true, MinVersion: v}}
}

// engine makes an engine for a world, with bounds that no healthy step meets.
// It runs until the test ends.
func engine(t testing.TB, w *relaytest.World, r resolve.Route, change ...func(*Options)) *Engine {
	t.Helper()
	o := Options{
		Hostname: "relay.sender.test", Port: w.Port, Roots: w.CA.Pool(),
		ConnectTimeout: 5 * time.Second, HandshakeTimeout: 10 * time.Second,
		CommandTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second,
	}
	for _, f := range change {
		f(&o)
	}
	reg := prometheus.NewRegistry()
	e := New(o, router{route: r}, nil, reg)
	relaytest.NoSeriesBorn(t, reg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if open := e.pool.Stats().Open; open != 0 {
			t.Errorf("%d connections still open after Run", open)
		}
	})
	return e
}

// hasty bounds every step so that a silent host costs little.
func hasty(o *Options) {
	o.HandshakeTimeout, o.CommandTimeout = 2*time.Second, 3*time.Second
}

func failureOf(r relay.Result) relay.Failure {
	if len(r.Outcomes) == 0 || r.Outcomes[0].Failure == nil {
		return relay.Failure{}
	}
	return *r.Outcomes[0].Failure
}

// how tells the fate of a message in one word.
func how(r relay.Result) string {
	switch o := r.Outcomes[0]; {
	case o.Failure == nil && o.Session.TLSVersion != "":
		return "tls"
	case o.Failure == nil:
		return "clear"
	case o.Failure.Class == relay.Refused:
		return "block"
	case o.Failure.Class == relay.Permanent:
		return "bounce"
	}
	return "defer"
}

// shown reports whether some connection ended in this verdict.
func shown(r relay.Result, row string, class policy.Evidence, reason events.Reason) bool {
	for _, h := range r.Attempt.Hosts {
		if v := h.Verdict; v.Row == row && v.Class == class && v.Reason == reason {
			return true
		}
	}
	return false
}

// ownWords demands that nothing people read is Go's error text, which names
// our address and port.
func ownWords(t *testing.T, r relay.Result) {
	t.Helper()
	said := []string{failureOf(r).Reply.String()}
	for _, h := range r.Attempt.Hosts {
		said = append(said, h.Reply)
	}
	for _, s := range said {
		for _, raw := range []string{"127.0.0.1:", "->", "read tcp", "dial tcp", "write tcp", "tls:", "remote error", "EOF", "i/o timeout", "syscall"} {
			if strings.Contains(s, raw) {
				t.Errorf("%q is not in our own words", s)
			}
		}
	}
}

// counted reads a counter.
func counted(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// authorities is a host that asks for a client certificate of one of 600
// authorities: as many names as a certificate request takes, which then is larger
// than crypto/tls reads (RFC 5246 §7.4.4, RFC 8446 §4.2.4).
func authorities(t testing.TB, ca *relaytest.CA, version uint16) relaytest.TLS {
	t.Helper()
	cert, err := ca.Issue(relaytest.Cert{Names: []string{"mx1.example.test"}})
	if err != nil {
		t.Fatal(err)
	}
	const many = 600
	octets := 65_535
	if version == tls.VersionTLS13 {
		octets -= 64 // they share the room with the algorithms of this release of Go
	}
	pool := x509.NewCertPool()
	for i := range many {
		n := octets / many
		if i == 0 {
			n += octets % many
		}
		name := append([]byte(fmt.Sprint(i)), make([]byte, n)...)[:n-2] // two octets say its length
		pool.AddCert(&x509.Certificate{Raw: name, RawSubject: name})
	}
	return relaytest.TLS{Config: &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, ClientCAs: pool, MinVersion: version, MaxVersion: version,
	}}
}

// longChain is a host that sends more certificates than crypto/tls reads.
func longChain(t testing.TB, ca *relaytest.CA, version uint16) relaytest.TLS {
	t.Helper()
	cert, err := ca.Issue(relaytest.Cert{Names: []string{"mx1.example.test"}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < 300<<10; n += len(cert.Certificate[0]) {
		cert.Certificate = append(cert.Certificate, cert.Certificate[0])
	}
	return relaytest.TLS{Config: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version}}
}
