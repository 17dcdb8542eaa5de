package submission

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// A client whose kernel holds back a small packet until the one before it is
// acknowledged (Nagle) must not wait for ours to acknowledge late, which takes
// 40 ms at least. Without TCP_QUICKACK every message here takes that.
func TestContentIsAcknowledgedAtOnce(t *testing.T) {
	const late = 40 * time.Millisecond
	w := start(t, nil)
	body := "Subject: a\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", 2<<10)
	pieces := func(c *client, content string) {
		for part := range slices.Chunk([]byte(content), len(content)/2+1) {
			c.send(string(part))
		}
	}
	for name, submit := range map[string]func(*client){
		"DATA": func(c *client) {
			c.cmd("354", "DATA")
			pieces(c, body+".\r\n")
		},
		"DATA line by line": func(c *client) {
			c.cmd("354", "DATA")
			for line := range strings.Lines("Subject: a\r\n\r\nhello\r\nworld\r\n.\r\n") {
				c.send(line)
			}
		},
		"commands in two writes": func(c *client) {
			c.send("DATA")
			c.send("\r\n")
			c.expect("354")
			c.send("\r\nhello\r\n.\r\n")
		},
		"BDAT": func(c *client) { pieces(c, fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body)) },
		"BDAT command first": func(c *client) {
			c.send(fmt.Sprintf("BDAT %d LAST\r\n", len(body)))
			c.send(body)
		},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", TLS ", secure), func(t *testing.T) {
				c := w.on(t).raw(w.srv.Addrs()[0])
				if err := c.Conn.(*net.TCPConn).SetNoDelay(false); err != nil {
					t.Fatal(err)
				}
				c.expect("220")
				if secure {
					c.cmd("220", "STARTTLS")
					c.secure()
				}
				c.cmd("250", "EHLO client.example")
				c.auth()
				// Where others use this machine, one median may be of their making.
				var median time.Duration
				for range 5 {
					if median = medianOf(15, func() time.Duration {
						c.envelope()
						begun := time.Now()
						submit(c)
						c.expect("250 2.0.0 Ok")
						return time.Since(begun)
					}); median < late*3/4 {
						return
					}
				}
				t.Errorf("a message takes %v", median)
			})
		}
	}
}

func medianOf(n int, measure func() time.Duration) time.Duration {
	took := make([]time.Duration, n)
	for i := range took {
		took[i] = measure()
	}
	slices.Sort(took)
	return took[n/2]
}
