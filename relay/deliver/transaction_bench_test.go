package deliver

import (
	"crypto/tls"
	"io"
	"testing"

	"tlsrelay/relay"
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
	peer := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS13})
	s := &session{client: &client{}, conn: newConn(near, 10e9), ext: extensions{pipelining: true, chunking: true, size: true}}
	go peer.Handshake()
	if err := s.startTLS(&tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true}, 10e9); err != nil {
		b.Fatal(err)
	}
	// What the host says is queued before the transaction is timed, so that
	// only our own work is.
	go io.Copy(io.Discard, peer)
	from, _ := relay.ParseAddress("alice@sender.test", false)
	to, _ := relay.ParseAddress("bob@example.test", false)
	m := mailObject{message: &relay.Message{From: from}, body: body(tenKiB)}
	rcpts := []*relay.Recipient{{Address: to}}
	b.SetBytes(int64(len(tenKiB)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		if _, err := peer.Write([]byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 4cZzYk3Xw2z9\r\n")); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if t := s.transact(&m, rcpts); t.final.Code != 250 {
			b.Fatalf("%+v", t)
		}
	}
}
