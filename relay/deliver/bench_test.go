package deliver

import (
	"bytes"
	"context"
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
