package smtp

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp/handshake"
	"tlsrelay/relay/deliver/smtp/wire"
	"tlsrelay/relay/relaytest"
)

// recorded is a connection to a host that says what it says whatever it is told,
// and then hangs up. byLine: no read gives more than one line, as of a host that
// waits for its turn.
type recorded struct {
	net.Conn
	said   []byte
	byLine bool
}

func (r *recorded) Read(b []byte) (int, error) {
	if len(r.said) == 0 {
		return 0, io.EOF
	}
	n := min(len(r.said), len(b))
	if end := bytes.IndexByte(r.said, '\n'); r.byLine && end >= 0 {
		n = min(n, end+1)
	}
	copy(b, r.said[:n])
	r.said = r.said[n:]
	return n, nil
}

func (*recorded) Write(b []byte) (int, error)      { return len(b), nil }
func (*recorded) Close() error                     { return nil }
func (*recorded) SetDeadline(time.Time) error      { return nil }
func (*recorded) SetReadDeadline(time.Time) error  { return nil }
func (*recorded) SetWriteDeadline(time.Time) error { return nil }
func (*recorded) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// openingTo is a connection to such a host, as it stands when it has been dialled.
func openingTo(c *Client, host *recorded, s policy.Sender, m OpenOptions) *opening {
	k := Target{Host: "mx1.example.test", Endpoint: handshake.Endpoint{ServerName: "mx1.example.test", Addr: netip.MustParseAddrPort("192.0.2.1:25")}}
	o := &opening{c: c, d: s.Demands().On(policy.Facts{}), m: m, s: &Session{Target: k, client: c, ehlo: "relay.sender.test"}}
	o.Observed = policy.Observed{Stage: policy.StageConnect, Plain: m.Plain}
	o.s.Conn = wire.NewConn(host, time.Minute)
	return o
}

// fuzzSenders are the demands that a fuzzed host meets.
var fuzzSenders = []policy.Sender{
	{},
	{Account: policy.Settings{RequireTLS: true}},
	{Account: policy.Settings{RequireValidCert: true}},
	{Account: policy.Settings{RequireTLS: true, MinVersion: policy.TLS13}},
}

// allSuites are those that crypto/tls has, rsaSuites those of them with the key exchange of
// RSA.
var allSuites, rsaSuites = func() (all, rsa []uint16) {
	for _, s := range slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites()) {
		all = append(all, s.ID)
		if strings.HasPrefix(s.Name, "TLS_RSA_") {
			rsa = append(rsa, s.ID)
		}
	}
	return all, rsa
}()

// fuzzClient opens sessions with hosts that any authority of ca speaks for.
func fuzzClient(ca *relaytest.CA) *Client {
	return &Client{
		Clocks: wire.Clocks{Connect: time.Minute, Handshake: time.Minute, Reply: time.Minute},
		Roots:  ca.Pool(), MinVersion: policy.TLS10, Ignored: func(string) []string { return nil },
		Profiles: handshake.NewProfiles(), Log: zap.NewNop(),
	}
}

// FuzzHandshake answers a ClientHello with any octets. No handshake comes of that,
// so the host never satisfies a demand and nothing goes on; the evidence is one of
// the classes there are; and what does not even look like TLS is never proof that
// the host has none.
func FuzzHandshake(f *testing.F) {
	ca := testCA(f)
	for _, flight := range serverFlights(f, ca) {
		f.Add(flight, uint8(1), uint8(0))
		f.Add(flight, uint8(0), uint8(2))
	}
	for _, alert := range []byte{0, 10, 40, 48, 70, 71, 80, 86, 109, 112, 116, 120, 255} {
		f.Add([]byte{21, 3, 3, 0, 2, 2, alert}, uint8(2), uint8(1))
		f.Add([]byte{21, 3, 1, 0, 2, 1, alert}, uint8(0), uint8(0))
	}
	for _, said := range []string{"", "500 what?\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "\x80\x2e\x01\x03\x01", "\x16", "\x16\x03\x03\xff\xff", "\x17\x03\x03\x00\x01x", "\x14\x03\x03\x00\x01\x01"} {
		f.Add([]byte(said), uint8(1), uint8(3))
	}
	f.Add(serverHello(tls.VersionTLS10, 0x002f), uint8(3), uint8(0))
	f.Add(serverHello(tls.VersionTLS12, 0x0033), uint8(1), uint8(0))
	c := fuzzClient(ca)
	kinds := []policy.Hello{policy.FullHello, policy.CompatHello, policy.NoSNIHello, policy.ProbeHello}
	f.Fuzz(func(t *testing.T, said []byte, demands, kind uint8) {
		m := OpenOptions{Hello: kinds[int(kind)%len(kinds)]}
		o := openingTo(c, &recorded{said: said}, fuzzSenders[int(demands)%len(fuzzSenders)], m)
		o.Observed.StartTLS = policy.Offered
		if o.handshake() || o.Observed.TLS != nil {
			t.Fatalf("%q is a handshake", said)
		}
		checkObservation(t, o)
		v := o.Verdict
		if v.Action == policy.Proceed || v.Class == policy.OK || v.Class == policy.Unreachable {
			t.Fatalf("%+v of %q", v, said)
		}
		isTLS := len(said) > 0 && (said[0] == 21 || said[0] == 22)
		if v.Class == policy.Conclusive && !isTLS {
			t.Fatalf("%q proves that there is no TLS: %+v, %s", said, v, o.Observed.Fault)
		}
	})
}

// FuzzHost lets a host say anything at all from the greeting on. MAIL comes next
// only in clear, where nothing is demanded and STARTTLS was not offered, or was left
// out on purpose.
func FuzzHost(f *testing.F) {
	ca := testCA(f)
	const hello = "220 mx1.example.test ESMTP\r\n250-mx1.example.test\r\n250-STARTTLS\r\n250 SIZE 1000\r\n"
	for _, flight := range serverFlights(f, ca) {
		f.Add(append([]byte(hello+"220 go on\r\n"), flight...), uint8(2), true)
	}
	for _, said := range []string{
		"", "220 x\r\n250 x\r\n", "220 x\n250-x\n250 XXXXXXXA\n", hello + "454 later\r\n", hello + "554 no\r\n", hello + "220 go on\r\n250 injected\r\n",
		"220 x\r\n500 what\r\n250 x\r\n", "220-x\r\n554 x\r\n", "421 busy\r\n", "220 x\r\n250-x\r\n250-STARTTLS\r\n550 x\r\n", "220 x\r\n250-x\r\n250 STARTTLS\r\n250 ok\r\n",
		"220 x\r\n501 name\r\n", "220 x\r\n250-x\r\nSTARTTLS\r\n250 x\r\n", "\x16\x03\x03\x00\x02", "220 \x1b[2J\xff\r\n554 \u202e\r\n",
	} {
		for demands := range uint8(5) {
			f.Add([]byte(said), demands, true)
		}
		f.Add([]byte(said), uint8(1), false)
	}
	c := fuzzClient(ca)
	f.Fuzz(func(t *testing.T, said []byte, demands uint8, byLine bool) {
		n := int(demands) % (len(fuzzSenders) + 1)
		m := OpenOptions{Hello: policy.FullHello, Plain: n == len(fuzzSenders)}
		o := openingTo(c, &recorded{said: said, byLine: byLine}, fuzzSenders[n%len(fuzzSenders)], m)
		if o.greet() && o.ehlo() && o.startTLS() && o.handshake() && o.ehloTLS() {
			t.Fatalf("%q came through a handshake", said)
		}
		checkObservation(t, o)
		seen := o.Observed
		if o.Verdict.Action != policy.Proceed {
			return
		}
		if seen.TLS != nil || !o.d.Opportunistic() || seen.StartTLS == policy.Offered && !m.Plain {
			t.Fatalf("MAIL after %q: %+v", said, seen)
		}
	})
}

// checkObservation holds what is told of a connection to what may be told.
func checkObservation(t *testing.T, o *opening) {
	v, seen := o.Verdict, o.Observed
	if !slices.Contains([]policy.Evidence{policy.OK, policy.Conclusive, policy.Inconclusive, policy.Unreachable, policy.Suspicious}, v.Class) ||
		!slices.Contains(events.Reasons(), v.Reason) || !slices.Contains(events.Reasons(), v.Note) || v.Row == "" {
		t.Fatalf("no verdict: %+v", v)
	}
	if (v.Class == policy.OK) != (v.Action == policy.Proceed) || (v.Reason == events.NoReason) != (v.Class == policy.OK) {
		t.Fatalf("a verdict that contradicts itself: %+v", v)
	}
	if v.ClearLater && (!o.d.Opportunistic() || v.Class == policy.Suspicious) {
		t.Fatalf("later in clear: %+v", v)
	}
	if !o.d.Opportunistic() && v.Class == policy.Conclusive && v.Failed == (policy.Demand{}) {
		t.Fatalf("nobody's demand was not met: %+v", v)
	}
	words := o.Reply.String()
	if len(o.Reply.Text) > 1024 || strings.ContainsFunc(words, events.Hidden) {
		t.Fatalf("not fit to be shown: %q", words)
	}
	evidence := relay.Delivery{Last: &relay.Attempt{At: time.Now(), Hosts: []relay.HostEvidence{{
		Host: o.s.Target.Host, Stage: seen.Stage, Hello: seen.Hello, Verdict: v, TLS: seen.TLS, Reply: words,
	}}}}
	if text, err := evidence.AppendJSON(nil); err != nil || !json.Valid(text) {
		t.Fatalf("cannot be recorded: %v %s", err, text)
	}
}

// serverFlights are the first flights of real servers, of all versions and kinds of
// key exchange: what a fuzzer would not make up by itself.
func serverFlights(f *testing.F, ca *relaytest.CA) (all [][]byte) {
	rsa, err := ca.Issue(relaytest.Cert{Names: []string{"mx1.example.test"}, Key: relaytest.KeyRSA2048})
	if err != nil {
		f.Fatal(err)
	}
	odd, err := ca.Issue(relaytest.Cert{Names: []string{"mx1.example.test"}, Key: relaytest.KeyRSA2048, Unparseable: true})
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range []*tls.Config{
		{MaxVersion: tls.VersionTLS13}, {MaxVersion: tls.VersionTLS12}, {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		{MaxVersion: tls.VersionTLS12, CipherSuites: rsaSuites}, {MaxVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert, CipherSuites: rsaSuites},
		{MaxVersion: tls.VersionTLS12, CipherSuites: rsaSuites, Certificates: []tls.Certificate{odd}},
	} {
		if c.Certificates == nil {
			c.Certificates = []tls.Certificate{rsa}
		}
		all = append(all, firstFlight(f, c))
	}
	return all
}

// firstFlight is what a server says up to where it needs to hear from the client.
func firstFlight(f *testing.F, c *tls.Config) []byte {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		tls.Server(server, c).Handshake()
		server.Close()
	}()
	var flight bytes.Buffer
	tls.Client(tapped{client, &flight}, &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, CipherSuites: allSuites,
	}).Handshake()
	if flight.Len() == 0 {
		f.Fatal("the server said nothing")
	}
	return flight.Bytes()
}

// tapped is a connection of which is kept what it reads.
type tapped struct {
	net.Conn
	kept *bytes.Buffer
}

func (c tapped) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.kept.Write(b[:n])
	return n, err
}

func testCA(f *testing.F) *relaytest.CA {
	f.Helper()
	ca, err := relaytest.NewCA()
	if err != nil {
		f.Fatal(err)
	}
	return ca
}

func serverHello(version, suite uint16) []byte {
	hello := append([]byte{byte(version >> 8), byte(version)}, make([]byte, 32)...) // random
	hello = append(hello, 0, byte(suite>>8), byte(suite), 0)                        // no session id; null compression
	msg := append([]byte{2, 0, 0, byte(len(hello))}, hello...)
	return append([]byte{22, byte(version >> 8), byte(version), 0, byte(len(msg))}, msg...)
}
