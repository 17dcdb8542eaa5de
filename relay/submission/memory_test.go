package submission

import (
	"fmt"
	"strings"
	"testing"

	"tlsrelay/policy/account"
)

// An account that has as much content on its way in as it may is told so at the end
// of content and at MAIL, its client is heard out, and others do not notice.
func TestContentMemoryIsBounded(t *testing.T) {
	for _, how := range []string{"DATA", "BDAT"} {
		t.Run(how, func(t *testing.T) {
			w := start(t, func(o *Options) { o.contentMemory = 1 << 20 })
			other := w.accounts.addKey(account.Parent, account.MailSend)
			long := "X-Long: " + strings.Repeat("x", 200_000) + "\r\n"
			begin := func(c *client) {
				if how == "DATA" {
					c.cmd("354", "DATA")
					c.send(long)
				} else {
					c.send(fmt.Sprintf("BDAT %d\r\n%s", len(long), long))
					c.expect("250")
				}
			}
			end := func(c *client, want string) {
				if how == "DATA" {
					c.send("\r\nbody\r\n.\r\n")
				} else {
					c.send("BDAT 6 LAST\r\n\r\nbody")
				}
				c.expect(want)
			}
			var all []*client
			for range 5 {
				c := w.ready()
				c.envelope()
				all = append(all, c)
			}
			for _, c := range all {
				begin(c)
			}
			waitFor(t, "the bound is reached", func() bool {
				return value(t, w.srv.metrics.bounded.WithLabelValues("content_memory")) > 0
			})
			if n := w.srv.memory.InUse(); n > 1<<20 {
				t.Errorf("%d octets are in use", n)
			}
			good := w.dial()
			good.cmd("250", "EHLO client.example")
			good.cmd("235", "AUTH PLAIN "+plainResponse("apikey", other))
			good.envelope()
			begin(good)
			end(good, "250")
			refused := 0
			for _, c := range all {
				begun := c
				if how == "DATA" {
					begun.send("\r\nbody\r\n.\r\n")
				} else {
					begun.send("BDAT 6 LAST\r\n\r\nbody")
				}
				if got := begun.reply(); got == "452 4.3.1 Too much content is on its way in, try again later" {
					refused++
				} else if !strings.HasPrefix(got, "250 2.0.0") {
					t.Errorf("%q", got)
				}
			}
			if refused == 0 || refused == len(all) || len(w.in.all()) != 1+len(all)-refused {
				t.Errorf("%d of %d were refused, %d messages came", refused, len(all), len(w.in.all()))
			}
			if n := w.srv.memory.InUse(); n != 0 {
				t.Errorf("%d octets are still in use", n)
			}
			all[0].envelope()
			begin(all[0])
			end(all[0], "250")
		})
	}
}

// Recipients take memory, too: of a command line of any length. A single one is
// never refused for it.
func TestRecipientMemoryIsBounded(t *testing.T) {
	w := start(t, func(o *Options) { o.contentMemory = 1 << 20 })
	c := w.ready()
	c.cmd("250", "MAIL FROM:<a@sender.example>")
	padding := strings.Repeat(" ", 10_000)
	for i := range 1000 {
		c.cmd("250 2.1.5", fmt.Sprintf("RCPT TO:%s<r%d@rcpt.example>", padding, i))
	}
	c.cmd("452 4.5.3", "RCPT TO:<one@too.many>")
	if n := w.srv.memory.InUse(); n != 0 {
		t.Errorf("%d octets are in use for a message that is refused", n)
	}
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect("452 4.3.1 Too much content is on its way in")
	c.envelope() // all of that is gone
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect("250")

	c.cmd("250", "MAIL FROM:<a@sender.example>")
	for i := range 999 {
		c.cmd("250 2.1.5", fmt.Sprintf("RCPT TO:<r%d@rcpt.example>", i))
	}
	if n := w.srv.memory.InUse(); n < 999*recipientSize || n > 1<<19 {
		t.Errorf("%d octets are in use", n)
	}
	full := w.ready()
	full.cmd("250", "MAIL FROM:<a@sender.example>")
	for i := range 999 {
		full.cmd("250 2.1.5", fmt.Sprintf("RCPT TO:<r%d@rcpt.example>", i))
	}
	waiting := w.ready()
	others := w.srv.memory.Share("2") // of the same account
	for n := int64(0); others.Resize(n); n += 16 << 10 {
	}
	waiting.cmd("452 4.3.1 Too much content", "MAIL FROM:<a@sender.example>")
	for _, c := range []*client{c, full} {
		c.cmd("250", "RSET")
	}
	waiting.cmd("250", "MAIL FROM:<a@sender.example>")
	others.Resize(0)
}
