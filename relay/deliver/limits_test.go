package deliver

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/pool"
	"tlsrelay/relay/deliver/smtp"
	"tlsrelay/relay/relaytest"
)

// burst delivers n messages, so many at a time, and gives those that failed.
func burst(t *testing.T, e *Engine, n, at int) (failed []relay.Result) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	jobs := make(chan Job, n)
	for range n {
		jobs <- jobTo(t, modeT)
	}
	close(jobs)
	for range at {
		wg.Go(func() {
			for job := range jobs {
				if r := e.Deliver(context.Background(), job); how(r) != "tls" {
					mu.Lock()
					failed = append(failed, r)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// TestMailsPerConnection: a host that takes three messages over a connection says
// so only by refusing the fourth. The message gets a new connection at once, and
// the limit is known from then on.
func TestMailsPerConnection(t *testing.T) {
	eachWay(t, relaytest.Script{MaxMails: 3}, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
		for range 10 {
			deliverOne(t, e, modeT, "tls")
		}
		if h.Connections() != 4 || h.Accepted() != 10 {
			t.Errorf("%d connections for %d messages", h.Connections(), h.Accepted())
		}
		if p := e.client.Peers.Get(h.Addr()); p.Carries != 3 {
			t.Errorf("carries %d", p.Carries)
		}
		refused := 0
		for _, s := range h.Sessions() {
			if n := strings.Count(strings.Join(verbsOf(s), " "), "MAIL"); n > 3 {
				refused++
			}
		}
		if refused != 1 {
			t.Errorf("MAIL was refused on %d connections", refused)
		}
	})
	// One that refuses the new connection's MAIL as well has put the message off.
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeT, "tls")
	h.SetScript(relaytest.Script{Mail: relaytest.Reply{Code: 452, Text: "4.3.1 disk full"}})
	h.HangUp()
	r := deliverOne(t, e, modeT, "defer")
	if f := failureOf(r); f.Status != "4.3.1" || e.client.Peers.Get(h.Addr()).Carries != 0 || h.Connections() != 2 {
		t.Errorf("%+v, %d connections", f, h.Connections())
	}
}

func verbsOf(s relaytest.Session) (all []string) {
	for _, c := range s.Commands {
		verb, _, _ := strings.Cut(c.Line, " ")
		all = append(all, verb)
	}
	return all
}

// TestMaxMessages: the operator's bound holds, and so does Exim's default for a
// host that greets as Exim.
func TestMaxMessages(t *testing.T) {
	for _, c := range []struct {
		greeting   string
		configured int
		want       int // connections for 21 messages
	}{{"mx1.example.test ESMTP Exim 4.96 Mon, 30 Nov 2026", 0, 3}, {"mx1.example.test ESMTP Exim 4.96", 7, 3}, {"mx1 ESMTP", 5, 5}, {"mx1 ESMTP eximious", 0, 1}} {
		w := relaytest.Start(t)
		h := w.Host(t, "mx1.example.test", relaytest.Script{Greeting: relaytest.Reply{Code: 220, Text: c.greeting}})
		e := engine(t, w, routeTo(h), func(o *Options) { o.MaxMessages = c.configured })
		for range 21 {
			deliverOne(t, e, modeT, "tls")
		}
		if h.Connections() != c.want {
			t.Errorf("%q, %d: %d connections", c.greeting, c.configured, h.Connections())
		}
	}
}

// TestConnectionsPerAddress: a host that takes five connections at a time, and turns
// away or hangs up on the sixth, gets a burst over five. Nothing is deferred.
func TestConnectionsPerAddress(t *testing.T) {
	for name, script := range map[string]relaytest.Script{
		"421":   {MaxConnections: 5, End: relaytest.Reply{Delay: 5 * time.Millisecond}},
		"close": {MaxConnections: 5, TurnAway: relaytest.Reply{Do: relaytest.Close}, End: relaytest.Reply{Delay: 5 * time.Millisecond}},
		"reset": {MaxConnections: 5, TurnAway: relaytest.Reply{Do: relaytest.Reset}, End: relaytest.Reply{Delay: 5 * time.Millisecond}},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			h := w.Host(t, "mx1.example.test", script)
			e := engine(t, w, routeTo(h))
			for _, r := range burst(t, e, 60, 20) {
				t.Errorf("%s: %+v, feedback %q", how(r), failureOf(r), r.Feedback)
			}
			turned := h.Connections()
			if burst(t, e, 60, 20); h.Connections()-turned > 5 {
				t.Errorf("%d connections more, the limit being known", h.Connections()-turned)
			}
			if c := e.pool.At(h.Addr()); c.Limit < 1 || c.Limit > 5 {
				t.Errorf("%+v", c)
			}
		})
	}
	// One that turns everybody away is in trouble, and is heard soon.
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421, Text: "4.3.2 closing"}})
	e := engine(t, w, routeTo(h))
	failed := burst(t, e, 40, 20)
	if len(failed) != 40 || failed[0].Feedback != relay.Trouble || failureOf(failed[0]).Reply.Code != 421 {
		t.Errorf("%d failed: %+v", len(failed), failed[0])
	}
	if c := e.pool.At(h.Addr()); c != (pool.Crowd{}) {
		t.Errorf("no connection, and yet %+v", c)
	}
}

// TestTooManyRefusals: a host that leaves after so many unknown recipients costs the
// next, good one a new connection and no time, and is in no trouble.
func TestTooManyRefusals(t *testing.T) {
	script := relaytest.Script{MaxRefused: 2, Rcpts: map[string]relaytest.Reply{
		"a@example.test": {Code: 550, Text: "5.1.1 who"}, "b@example.test": {Code: 550, Text: "5.1.1 who"}, "c@example.test": {Code: 550, Text: "5.1.1 who"},
	}}
	eachWay(t, script, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
		for _, bad := range []string{"a@example.test", "b@example.test"} {
			if r := e.Deliver(context.Background(), jobTo(t, modeT, bad)); how(r) != "bounce" || r.Feedback != relay.Healthy {
				t.Errorf("%s: %s, feedback %q", bad, how(r), r.Feedback)
			}
		}
		if r := deliverOne(t, e, modeT, "tls"); r.Feedback != relay.Healthy {
			t.Errorf("feedback %q", r.Feedback)
		}
		// The same within one message: who was not asked is asked.
		r := e.Deliver(context.Background(), jobTo(t, modeT, "a@example.test", "b@example.test", "c@example.test", "good@example.test"))
		for i, want := range []relay.Class{relay.Permanent, relay.Permanent, relay.Permanent, ""} {
			if f := r.Outcomes[i].Failure; (f == nil) != (want == "") || f != nil && f.Class != want {
				t.Errorf("recipient %d: %+v", i, f)
			}
		}
		if r.Feedback != relay.Healthy {
			t.Errorf("feedback %q", r.Feedback)
		}
	})
}

// TestBarrenSession: a session that serves nobody three times over is not kept.
func TestBarrenSession(t *testing.T) {
	eachWay(t, relaytest.Script{Rcpt: relaytest.Reply{Code: 550, Text: "5.1.1 who"}}, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
		for range 6 {
			deliverOne(t, e, modeT, "bounce")
		}
		if h.Connections() != 2 {
			t.Errorf("%d connections", h.Connections())
		}
	})
}

// TestRefusedReset: a pooled session whose RSET is refused, and which takes all that
// comes after it, delivers once and is not kept.
func TestRefusedReset(t *testing.T) {
	for _, code := range []int{500, 502, 451} {
		eachWay(t, relaytest.Script{
			Rset:  relaytest.Reply{Code: code, Text: "5.5.1 no"},
			Rcpts: map[string]relaytest.Reply{"bad@example.test": {Code: 450, Text: "4.2.0 later"}},
		}, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
			deliverOne(t, e, modeT, "tls")
			e.Deliver(context.Background(), jobTo(t, modeT, "bad@example.test"))
			deliverOne(t, e, modeT, "tls")
			deliverOne(t, e, modeT, "tls")
			if h.Accepted() != 3 {
				t.Errorf("%d: taken %d times; %q", code, h.Accepted(), verbs(h))
			}
		})
	}
}

// TestHangsUpAfterEach: a host that closes some milliseconds after each 250, without a
// word, is soon known for it: what it may have missed is not sent before it has
// answered the envelope.
func TestHangsUpAfterEach(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{HangUpAfter: 5 * time.Millisecond})
	e := engine(t, w, routeTo(h))
	known := func() bool { return time.Now().Before(e.client.Peers.Get(h.Addr()).HangsUp) }
	for i := 0; !known(); i++ {
		if i > 100 {
			t.Fatalf("not known: %+v", e.client.Peers.Get(h.Addr()))
		}
		burst(t, e, 20, 4)
	}
	for _, r := range burst(t, e, 100, 4) {
		t.Errorf("%s: %+v", how(r), failureOf(r))
	}
	// The ordinary close of an idle session is no such thing.
	h = w.Host(t, "mx2.example.test")
	e = engine(t, w, routeTo(h))
	for range 4 {
		deliverOne(t, e, modeT, "tls")
		age(e, 2*smtp.ColdAfter)
		h.HangUp()
	}
	deliverOne(t, e, modeT, "tls")
	if p := e.client.Peers.Get(h.Addr()); !p.Hangup.IsZero() || !p.HangsUp.IsZero() {
		t.Errorf("%+v", p)
	}
}

// TestRecipient421OnFreshSession: on a new session it is the host's trouble, and the
// recipient waits.
func TestRecipient421OnFreshSession(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{Rcpt: relaytest.Reply{Code: 421, Text: "4.3.2 bye"}})
	r := deliverOne(t, engine(t, w, routeTo(h)), modeT, "defer")
	if h.Connections() != 1 || r.Feedback != relay.Trouble || failureOf(r).Reason != events.ReplyTemp {
		t.Errorf("%d connections, feedback %q, %+v", h.Connections(), r.Feedback, failureOf(r))
	}
}
