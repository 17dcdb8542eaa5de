package smtp

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/deliver/smtp/wire"
	"tlsrelay/relay/relaytest"
)

// BenchmarkWarmClient measures the client's side alone: a transaction over
// TLS against a connection that answers from a script.
func BenchmarkWarmClient(b *testing.B) {
	w := relaytest.Start(b)
	cert, err := w.CA.Issue(relaytest.Cert{Names: []string{"mx1.example.test"}})
	if err != nil {
		b.Fatal(err)
	}
	near, server := tcpPair(b)
	host := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS13})
	s := &Session{client: &Client{}, Conn: wire.NewConn(near, 10e9), Ext: wire.Extensions{Pipelining: true, Chunking: true, Size: true}}
	go host.Handshake()
	if err := s.StartTLS(&tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}, 10e9); err != nil {
		b.Fatal(err)
	}
	// The address is known to answer content so, and to do BDAT: all goes in one flight.
	taken := wire.Reply{Code: 250, Text: []byte("2.0.0 Ok: queued as 4cZzYk3Xw2z9")}
	s.client.Peers.Change(s.Target.Addr, func(p *peer.Traits, now time.Time) {
		p.Learn(taken.Fingerprint(), nil, now)
		p.Chunks = p.Learned
	})
	// What the host says is queued before the transaction is timed, so that
	// only our own work is.
	go io.Copy(io.Discard, host)
	from, _ := relay.ParseAddress("alice@sender.test", false)
	to, _ := relay.ParseAddress("bob@example.test", false)
	m := Mail{Message: &relay.Message{From: from}, Body: tenKiB}
	rcpts := []*relay.Recipient{{Address: to}}
	b.SetBytes(int64(len(tenKiB)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		if _, err := host.Write([]byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 4cZzYk3Xw2z9\r\n")); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if t := s.Transact(&m, rcpts); t.Final.Code != 250 {
			b.Fatalf("%+v", t)
		}
	}
}

// tcpPair is a connection over loopback, both ends of it.
func tcpPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}
