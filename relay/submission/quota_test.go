package submission

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"pgregory.net/rapid"

	"tlsrelay/policy/account"
)

func TestQuotaSlides(t *testing.T) {
	q := quota{by: make(map[account.ID]*window)}
	now := time.Unix(1_000_000_000, 0)
	for i, step := range []struct {
		after time.Duration
		n     int
		ok    bool
	}{
		{0, 40, true}, {30 * time.Minute, 60, true}, {time.Second, 1, false}, {29 * time.Minute, 1, false},
		{2 * time.Minute, 41, false}, {0, 40, true}, {28 * time.Minute, 1, false}, {2 * time.Minute, 60, true},
		{48 * time.Hour, 100, true}, {0, 1, false}, {time.Hour + time.Minute, 101, false},
	} {
		now = now.Add(step.after)
		if ok := q.take("2", step.n, 100, now); ok != step.ok {
			t.Errorf("step %d: %v", i, ok)
		}
	}
	if !q.take("3", 100, 100, now) || !q.exhausted("3", 100, now) || q.exhausted("2", 100, now) || len(q.by) != 1 {
		t.Errorf("%d accounts are remembered", len(q.by))
	}
	q.give("3", 1, now)
	if !q.take("3", 1, 100, now) || q.take("3", 1, 100, now) {
		t.Error("what was given back")
	}
	if !q.take("3", 1000, 0, now) || q.exhausted("3", 0, now) {
		t.Error("a bound that is off")
	}
}

// Whatever comes when, no hour has more than is allowed.
func TestQuotaHoldsForEveryHour(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type one struct {
			at time.Time
			n  int
		}
		q := quota{by: make(map[account.ID]*window)}
		now := time.Unix(1_000_000_000, 0)
		var taken []one
		for range rapid.IntRange(1, 100).Draw(t, "messages") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1200).Draw(t, "pause")) * time.Second)
			n := rapid.IntRange(1, 60).Draw(t, "n")
			last := 0
			for _, m := range taken {
				if now.Sub(m.at) <= time.Hour {
					last += m.n
				}
			}
			ok := q.take("2", n, 100, now)
			if ok {
				taken = append(taken, one{now, n})
			}
			if ok && last+n > 100 {
				t.Fatalf("%d in an hour", last+n)
			}
		}
	})
}

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
