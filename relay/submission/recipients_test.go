package submission

import (
	"context"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// An account that has had its recipients of the hour is told so at MAIL or at the
// end of content. Others, and what was refused for something else, do not count.
func TestRecipientsPerHour(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	w := startLogging(t, zap.New(core), nil)
	limit := func(n int) {
		w.accounts.change(func() {
			a := w.accounts.accounts["2"]
			a.MaxRecipientsPerHour = n
			w.accounts.accounts["2"] = a
		})
	}
	limit(3)
	c := w.ready()
	c.envelope()
	c.cmd("250", "RCPT TO:<c@rcpt.example>")
	c.cmd("354", "DATA")
	c.send("X-SMTPAPI: {\r\n\r\n.\r\n")
	c.expect("550")
	w.in.fail = context.DeadlineExceeded
	if got := c.data(simple); !strings.HasPrefix(got, "451") {
		t.Error(got)
	}
	w.in.fail = nil
	for range 2 {
		if got := c.data(simple); !strings.HasPrefix(got, "250") {
			t.Error(got)
		}
	}
	const words = "452 4.3.1 Too many recipients in an hour, try again later"
	c.envelope()
	c.cmd("250", "RCPT TO:<c@rcpt.example>") // never refused alone
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	if got := c.reply(); got != words {
		t.Error(got)
	}
	if got := c.data(simple); !strings.HasPrefix(got, "250") {
		t.Error(got)
	}
	if got := c.cmd("452", "MAIL FROM:<a@sender.example>"); got != words {
		t.Error(got)
	}
	told := logs.FilterMessageSnippet("one of its bounds").All()
	if n := value(t, w.srv.metrics.bounded.WithLabelValues("recipients_per_hour")); n != 2 || len(told) != 1 {
		t.Fatalf("%v are counted, %d lines", n, len(told))
	}
	if e := told[0].ContextMap(); e["account"] != "2" || e["bound"] != "recipients_per_hour" {
		t.Errorf("%v", e)
	}
	limit(4) // acts at once, also for a message that has begun
	c.envelope()
	limit(3)
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect(words)
	limit(0)
	c.data(simple)
	if n := len(w.in.all()); n != 4 {
		t.Errorf("%d messages came", n)
	}
	// An account that has ended meanwhile has no message taken either.
	late := w.ready()
	late.envelope()
	late.cmd("354", "DATA")
	w.accounts.change(func() { delete(w.accounts.accounts, "2") })
	late.send(simple + "\r\n.\r\n")
	late.expect("421 4.7.0 " + host)
	if n := len(w.in.all()); n != 4 {
		t.Errorf("%d messages came", n)
	}
}
