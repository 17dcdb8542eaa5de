package deliver

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"testing"

	"tlsrelay/relay/relaytest"
)

// tenKiB is a body of ordinary lines, some of which begin with a dot.
var tenKiB = bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog, and nothing ever comes of it..\r\n.\r\n"), 10<<10/80)

// BenchmarkWarm delivers over a session that is open already. The numbers
// include the receiving host, which runs in the same process.
func BenchmarkWarm(b *testing.B) {
	for _, c := range []struct {
		name     string
		keywords []string
	}{
		{"BDAT", nil},
		{"DATA", []string{"PIPELINING", "SIZE", "8BITMIME"}},
		{"stepwise", []string{"8BITMIME"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := relaytest.Start(b)
			h := w.Host(b, "mx1.example.test", relaytest.Script{Discard: true, Keywords: c.keywords})
			e := engine(b, w, routeTo(h))
			job := jobTo(b, modeV)
			job.Body = body(tenKiB)
			b.SetBytes(int64(len(tenKiB)))
			b.ReportAllocs()
			for b.Loop() {
				if r := e.Deliver(context.Background(), job); how(r) != "tls" {
					b.Fatalf("%+v", r)
				}
			}
			if n := h.Connections(); n > 2 {
				b.Fatalf("%d connections", n)
			}
		})
	}
}

// BenchmarkCold delivers each message over a connection of its own, with a
// resumed TLS session and without.
func BenchmarkCold(b *testing.B) {
	for name, script := range map[string]relaytest.Script{
		"resumed": {Discard: true, Keywords: []string{"PIPELINING", "CHUNKING", "LIMITS MAILMAX=1"}},
		"full":    {Discard: true, Keywords: []string{"PIPELINING", "CHUNKING", "LIMITS MAILMAX=1"}, TLS: relaytest.TLS{NoTickets: true}},
	} {
		b.Run(name, func(b *testing.B) {
			w := relaytest.Start(b)
			h := w.Host(b, "mx1.example.test", script)
			e := engine(b, w, routeTo(h))
			job := jobTo(b, modeV)
			job.Body = body(tenKiB)
			b.ReportAllocs()
			for b.Loop() {
				if r := e.Deliver(context.Background(), job); how(r) != "tls" {
					b.Fatalf("%+v", r)
				}
			}
		})
	}
}

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
	own := tls.Client(near, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	go peer.Handshake()
	if err := own.Handshake(); err != nil {
		b.Fatal(err)
	}
	// What the host says is queued before the transaction is timed, so that
	// only our own work is.
	s := &session{client: &client{}, conn: newConn(near, 10e9), ext: extensions{pipelining: true, chunking: true, size: true}}
	s.secure(own)
	go io.Copy(io.Discard, peer)
	job := jobTo(b, modeO)
	m := mailObject{message: &job.Message, body: body(tenKiB)}
	rcpts := recipientsOf(&job)
	b.SetBytes(int64(len(tenKiB)))
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		if _, err := peer.Write([]byte("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.0.0 Ok: queued as 4cZzYk3Xw2z9\r\n")); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if x := s.transact(&m, rcpts); x.final.Code != 250 {
			b.Fatalf("%+v", x)
		}
	}
}

func BenchmarkDotStuffing(b *testing.B) {
	c := newConn(nopConn{}, 10e9)
	c.out = make([]byte, 0, maxWrite)
	b.SetBytes(int64(len(tenKiB)))
	b.ReportAllocs()
	for b.Loop() {
		c.out = c.out[:0]
		w := content{c: c, stuff: true}
		if err := w.send(body(tenKiB)); err != nil {
			b.Fatal(err)
		}
	}
}
