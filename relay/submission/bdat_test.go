package submission

import (
	"fmt"
	"strings"
	"testing"
)

// A message that is given up in the midst of its chunks leaves nothing behind:
// the next one gets its own answer, and no goroutine waits for ever (TestMain).
func TestChunksGivenUp(t *testing.T) {
	const rounds = 400
	const mail = "MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@rcpt.example>\r\n"
	const body = "Subject: x\r\n\r\n"
	last := mail + fmt.Sprintf("BDAT %d LAST\r\n%s", len(body), body)
	for name, c := range map[string]struct {
		abort   string
		answers int // of abort
		polite  bool
	}{
		"RSET":           {"BDAT 14\r\nSubject: big\r\nRSET\r\n", 2, true},
		"EHLO":           {"BDAT 14\r\nSubject: big\r\nEHLO client.example\r\n", 2, true},
		"too big":        {"BDAT 14\r\nSubject: big\r\nBDAT 2000\r\n" + strings.Repeat("x", 2000), 2, true},
		"RSET pipelined": {"BDAT 0\r\nRSET\r\n", 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(o *Options) { o.Trusted, o.MaxMessageBytes = loopback(), 1000 })
			k := w.dial()
			k.cmd("250", "EHLO client.example")
			answer := func(n int) (reply string) {
				for range n {
					reply = k.reply()
				}
				return reply
			}
			for i := range rounds {
				k.send(mail + c.abort)
				if c.polite {
					answer(2 + c.answers)
				}
				k.send(last)
				if !c.polite {
					answer(2 + c.answers)
				}
				if got := answer(3); !strings.HasPrefix(got, "250 2.0.0 Ok: queued as ") {
					t.Fatalf("round %d: %s", i, got)
				}
			}
			if n := len(w.in.all()); n != rounds {
				t.Errorf("%d messages were stored", n)
			}
		})
	}
}

// What follows a BDAT whose size is not understood may be content, and nobody
// takes it for commands.
func TestChunkOfUnknownSize(t *testing.T) {
	for _, command := range []string{"BDAT 4294967296 LAST", "BDAT 5 FOO", "BDAT x", "BDAT", "BDAT 1 2 3"} {
		w := start(t, nil)
		c := w.ready()
		c.envelope()
		c.send(command + "\r\nRSET\r\nMAIL FROM:<x@x.example>\r\nRCPT TO:<y@y.example>\r\nDATA\r\nX: y\r\n\r\n.\r\n")
		c.expect("501")
		c.closed()
		if n := len(w.in.all()); n != 0 {
			t.Errorf("%s: %d messages accepted", command, n)
		}
	}
}
