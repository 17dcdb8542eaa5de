package submission

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkSubmit submits messages of 10 KiB over 20 warm TLS connections,
// each with its commands pipelined. The CPU time includes the client's.
func BenchmarkSubmit(b *testing.B) {
	line := strings.Repeat("x", 70) + "\r\n"
	content := "From: a@sender.example\r\nSubject: benchmark\r\n\r\n" + strings.Repeat(line, 10<<10/len(line))
	const envelope = "MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@rcpt.example>\r\n"
	b.Run("DATA", func(b *testing.B) {
		benchmark(b, func(c *client) {
			c.send(envelope + "DATA\r\n")
			c.expect("250")
			c.expect("250")
			c.expect("354")
			c.send(content + ".\r\n")
			c.expect("250 2.0.0 Ok")
		})
	})
	b.Run("BDAT", func(b *testing.B) {
		one := envelope + fmt.Sprintf("BDAT %d LAST\r\n%s", len(content), content)
		benchmark(b, func(c *client) {
			c.send(one)
			c.expect("250")
			c.expect("250")
			c.expect("250 2.0.0 Ok")
		})
	})
}

func benchmark(b *testing.B, submit func(*client)) {
	const connections = 20
	w := start(b, nil)
	w.in.quiet = true
	clients := make([]*client, connections)
	for i := range clients {
		clients[i] = w.dialTLS()
		clients[i].cmd("250", "EHLO client.example")
		clients[i].auth()
		clients[i].SetDeadline(time.Time{})
	}
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				submit(c)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
