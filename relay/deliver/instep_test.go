package deliver

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp"
	"tlsrelay/relay/relaytest"
)

// verbs gives the verbs that a host was asked on each connection.
func verbs(h *relaytest.Host) []string {
	var all []string
	for _, s := range h.Sessions() {
		var line []string
		for _, c := range s.Commands {
			verb, arg, _ := strings.Cut(c.Line, " ")
			if verb == "BDAT" && strings.HasSuffix(arg, "LAST") {
				verb = "LAST"
			}
			line = append(line, verb)
		}
		all = append(all, strings.Join(line, " "))
	}
	return all
}

// proven has an engine learn that a healthy host is one, and forget its sessions.
func proven(t *testing.T, e *Engine, h *relaytest.Host) {
	t.Helper()
	deliverOne(t, e, modeT, "tls")
	if p := e.client.Peers.Get(h.Addr()); len(p.Answers) != 1 || p.Alike {
		t.Fatalf("%+v", p)
	}
	forgetSessions(e)
}

// forgetSessions closes the idle sessions of an engine that goes on.
func forgetSessions(e *Engine) { e.pool.CloseIdle() }

// TestSurplus: a host says more than it is asked, once or twice, at once or a
// moment later, after any command, on an address that is new or has proven to be
// clean. A message that it refuses is never told as delivered, and one that it
// takes is taken once.
func TestSurplus(t *testing.T) {
	const moment = 20 * time.Millisecond
	for way, keywords := range ways {
		for _, step := range []string{"ehlo_tls", "mail", "rcpt", "data", "bdat", "end"} {
			t.Run(way+"/"+step, func(t *testing.T) {
				t.Parallel()
				w := relaytest.Start(t)
				for _, raw := range []string{"250 2.1.5 Ok\r\n", "250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n", "250-2.1.0 so\r\n250 2.1.0 what\r\n", "250 2.0.0 Ok: taken\r\n"} {
					for _, delay := range []time.Duration{0, moment} {
						if step != "end" && strings.HasSuffix(raw, "taken\r\n") {
							continue // nobody can tell it from the answer, which it is word for word
						}
						for _, known := range []bool{false, true} {
							for _, takes := range []bool{false, true} {
								t.Run(fmt.Sprintf("%d/%q/known=%v/takes=%v", delay, raw, known, takes), func(t *testing.T) {
									surplus(t, w, keywords, step, relaytest.Surplus{Raw: raw, Delay: delay}, known, takes)
								})
							}
						}
					}
				}
			})
		}
	}
}

func surplus(t *testing.T, w *relaytest.World, keywords []string, step string, extra relaytest.Surplus, known, takes bool) {
	h := w.Host(t, "mx1.example.test", relaytest.Script{Keywords: keywords})
	defer h.Close()
	e := engine(t, w, routeTo(h))
	if known {
		proven(t, e, h)
	}
	script := relaytest.Script{Keywords: keywords, Surplus: map[string]relaytest.Surplus{step: extra}}
	if !takes {
		script.End = relaytest.Reply{Code: 554, Text: "5.7.1 spam"}
	}
	h.SetScript(script)
	for range 3 {
		before := h.Accepted()
		r := e.Deliver(context.Background(), jobTo(t, modeT))
		took := h.Accepted() - before
		if told := r.Outcomes[0].Failure == nil; told != (took > 0) && (told || !takes) {
			t.Fatalf("told as delivered: %v, taken: %d; %+v", told, took, r.Outcomes[0])
		}
		if took > 1 {
			t.Fatalf("taken %d times", took)
		}
		if f := r.Outcomes[0].Failure; f != nil && f.Class != relay.Temporary && takes {
			t.Fatalf("bounced what may have been taken: %+v", f)
		}
	}
}

// TestSurplusEnds: a host that says more than it is asked gets its mail all the
// same, asked step by step, and one that refuses it is heard.
func TestSurplusEnds(t *testing.T) {
	w := relaytest.Start(t)
	for _, step := range []string{"mail", "rcpt", "bdat"} {
		for fate, end := range map[string]relaytest.Reply{"tls": {}, "bounce": {Code: 554, Text: "5.7.1 spam"}} {
			h := w.Host(t, "mx1.example.test", relaytest.Script{
				End: end, Surplus: map[string]relaytest.Surplus{step: {Raw: "250 2.1.5 Ok\r\n"}},
			})
			e := engine(t, w, routeTo(h))
			r := e.Deliver(context.Background(), jobTo(t, modeT))
			if got := how(r); got != fate && step != "bdat" {
				t.Errorf("%s: %s, want %s: %+v; %q", step, got, fate, failureOf(r), verbs(h))
			}
			if p := e.client.Peers.Get(h.Addr()); !time.Now().Before(p.OutOfStep) {
				t.Errorf("%s: not remembered", step)
			}
		}
	}
}

// TestRefusedRecipientOutOfStep: where replies are shifted, whose refusal it was is
// not known, so nobody is told of one that was not theirs.
func TestRefusedRecipientOutOfStep(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	proven(t, e, h)
	h.SetScript(relaytest.Script{
		Surplus: map[string]relaytest.Surplus{"mail": {Raw: "250 2.1.0 Ok\r\n"}},
		Rcpts:   map[string]relaytest.Reply{"bad@example.test": {Code: 550, Text: "5.1.1 who"}},
	})
	for range 2 {
		r := e.Deliver(context.Background(), jobTo(t, modeT, "bad@example.test", "good@example.test"))
		if f := r.Outcomes[1].Failure; f != nil && f.Class != relay.Temporary {
			t.Errorf("the good recipient: %+v", f)
		}
		if f := r.Outcomes[0].Failure; f == nil || f.Class == relay.Permanent && f.Reply.Code != 550 {
			t.Errorf("the bad recipient: %+v", f)
		}
	}
}

// TestOneFlight: the first message to an address goes step by step and proves it;
// those after it go in one flight, on fresh connections as well as on pooled ones.
func TestOneFlight(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	for range 3 {
		deliverOne(t, e, modeT, "tls")
	}
	want := "EHLO STARTTLS EHLO MAIL RCPT BDAT LAST EHLO MAIL RCPT LAST MAIL RCPT LAST"
	if got := verbs(h); len(got) != 1 || got[0] != want {
		t.Errorf("%q", got)
	}
	// Content that could name recipients to a host that runs it waits for RCPT, and
	// to a new address does not go by BDAT at all.
	for _, line := range []string{"RCPT TO:<eve@example.test>\r\n", "x\r\n \trcpt to:<eve@example.test>\r\n", "x\nRcpt\r\n"} {
		job := jobTo(t, modeT)
		job.Body = body(line)
		if !(&smtp.Mail{Body: job.Body}).NamesRecipients() {
			t.Errorf("%q is taken for harmless", line)
		}
		e := engine(t, w, routeTo(h))
		if r := e.Deliver(context.Background(), job); how(r) != "tls" || h.Messages()[h.Accepted()-1].Chunked {
			t.Errorf("%q: %s, by BDAT: %v", line, how(r), h.Messages()[h.Accepted()-1].Chunked)
		}
	}
	for _, text := range []string{"", "x", letter, "Received: RCPT\r\nXRCPT\r\nRCP\r\nRC\r\n"} {
		job := jobTo(t, modeT)
		job.Body = body(text)
		if (&smtp.Mail{Body: job.Body}).NamesRecipients() {
			t.Errorf("%q names recipients", text)
		}
	}
}

// TestOneFlightRoundTrips counts them: a host that is clean and answers everything
// in the same words keeps its single round trip, too.
func TestOneFlightAlike(t *testing.T) {
	ok := relaytest.Reply{Code: 250, Text: "OK"}
	w := relaytest.Start(t)
	script := relaytest.Script{Mail: ok, Rcpt: ok, End: ok}
	h := w.Host(t, "mx1.example.test", script)
	e := engine(t, w, routeTo(h))
	for range 3 {
		deliverOne(t, e, modeT, "tls")
	}
	want := "EHLO STARTTLS EHLO MAIL RCPT BDAT LAST EHLO MAIL RCPT LAST EHLO MAIL RCPT LAST EHLO"
	if got := verbs(h); len(got) != 1 || got[0] != want {
		t.Errorf("%q", got)
	}
	script.End = relaytest.Reply{Code: 554, Text: "no"}
	for _, raw := range []string{"250 OK\r\n", "250 OK\r\n250 OK\r\n"} {
		h := w.Host(t, "mx1.example.test", relaytest.Script{Mail: ok, Rcpt: ok, End: ok})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeT, "tls")
		script.Surplus = map[string]relaytest.Surplus{"rcpt": {Raw: raw}}
		h.SetScript(script)
		h.HangUp()
		if r := e.Deliver(context.Background(), jobTo(t, modeT)); r.Outcomes[0].Failure == nil {
			t.Errorf("%q: told as delivered", raw)
		}
	}
}

// TestChunkingThatLies: a host lists CHUNKING and refuses BDAT, swallows it, dies of
// it, or runs it as commands. The message goes by DATA, once, and the address is
// remembered.
func TestChunkingThatLies(t *testing.T) {
	w := relaytest.Start(t)
	for name, script := range map[string]relaytest.Script{
		"500":            {Chunk: relaytest.Reply{Code: 500, Text: "5.5.1 unknown"}},
		"502":            {Chunk: relaytest.Reply{Code: 502, Text: "5.5.1 not here"}},
		"503":            {Chunk: relaytest.Reply{Code: 503, Text: "5.5.1 not now"}},
		"504":            {Chunk: relaytest.Reply{Code: 504, Text: "5.5.1 no"}},
		"closes":         {Chunk: relaytest.Reply{Do: relaytest.Close}},
		"resets":         {Chunk: relaytest.Reply{Do: relaytest.Reset}},
		"silent":         {Chunk: relaytest.Reply{Do: relaytest.Silence}},
		"as commands":    {ChunkAsCommands: true},
		"as commands, p": {ChunkAsCommands: true, Keywords: []string{"CHUNKING"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := w.Host(t, "mx1.example.test", script)
			e := engine(t, w, routeTo(h), hasty)
			for i := range 2 {
				r := deliverOne(t, e, modeT, "tls")
				if m := h.Messages(); len(m) != i+1 || m[i].Chunked || string(m[i].Body) != letter {
					t.Errorf("%d messages after %d", len(m), i+1)
				}
				if r.Feedback != relay.Healthy {
					t.Errorf("feedback %q", r.Feedback)
				}
			}
			if h.Connections() != 2 {
				t.Errorf("%d connections: %q", h.Connections(), verbs(h))
			}
		})
	}
	// One that has proven it and fails later is about the verb as well.
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	proven(t, e, h)
	h.SetScript(relaytest.Script{ChunkAsCommands: true})
	deliverOne(t, e, modeT, "tls")
	if m := h.Messages(); len(m) != 2 || m[1].Chunked {
		t.Errorf("%d messages", len(m))
	}
	// A refusal is one: 552 is about the message.
	h = w.Host(t, "mx1.example.test", relaytest.Script{Chunk: relaytest.Reply{Code: 552, Text: "5.3.4 too big"}})
	if r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeT)); failureOf(r).Status != "5.3.4" || how(r) != "bounce" {
		t.Errorf("%+v", failureOf(r))
	}
}

// TestRefusedChunkIsRun: a host that takes BDAT does not discard the chunk when it
// has refused the recipient. Its answers to the content's lines are nobody's, and
// the recipient is refused for the reason it was.
func TestRefusedChunkIsRun(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{RefusedAsCommands: true})
	e := engine(t, w, routeTo(h))
	proven(t, e, h)
	h.SetScript(relaytest.Script{RefusedAsCommands: true, Rcpt: relaytest.Reply{Code: 550, Text: "5.1.1 who"}})
	r := e.Deliver(context.Background(), jobTo(t, modeT))
	if f := failureOf(r); f.Status != "5.1.1" || f.Class != relay.Permanent {
		t.Errorf("%+v; %q", f, verbs(h))
	}
}

// TestIgnoredKeywords: an operator need not believe what a host lists.
func TestIgnoredKeywords(t *testing.T) {
	w := relaytest.Start(t)
	for _, name := range []string{"mx1.example.test", "*.example.test", "*.test", "*"} {
		h := w.Host(t, "mx1.example.test")
		e := engine(t, w, routeTo(h), func(o *Options) {
			o.IgnoreKeywords = map[string][]string{name: {"CHUNKING", "SIZE"}, "*.other.test": {"PIPELINING"}}
		})
		deliverOne(t, e, modeT, "tls")
		if m := h.Messages()[0]; m.Chunked || len(m.MailParams) > 0 {
			t.Errorf("%s: %+v", name, m)
		}
		if got := verbs(h)[0]; got != "EHLO STARTTLS EHLO MAIL RCPT DATA EHLO" {
			t.Errorf("%s: %s", name, got)
		}
	}
	if words := (Options{IgnoreKeywords: map[string][]string{"*.example.test": {"X"}}}).ignored("example.test"); words != nil {
		t.Errorf("the domain itself: %v", words)
	}
}

// TestMixedReplies: a reply that says yes in one line and no in another is
// believed in neither the first time; then its last line counts.
func TestMixedReplies(t *testing.T) {
	raw := func(s string) relaytest.Reply { return relaytest.Reply{Raw: s} }
	for _, c := range []struct {
		name         string
		script       relaytest.Script
		first, again string
	}{
		{"end, yes then no", relaytest.Script{End: raw("250-ok\r\n554 5.7.1 no\r\n")}, "defer", "bounce"},
		{"end, no then yes", relaytest.Script{End: raw("554-no\r\n250 2.0.0 ok\r\n")}, "defer", "tls"},
		{"end, two kinds of yes", relaytest.Script{End: raw("250-ok\r\n251 ok\r\n")}, "tls", "tls"},
		{"end, two kinds of no", relaytest.Script{End: raw("451-later\r\n554 5.7.1 no\r\n")}, "bounce", "bounce"},
		{"end, a line without a code", relaytest.Script{End: raw("250-ok\r\nthank you\r\n250 2.0.0 ok\r\n")}, "tls", "tls"},
		{"end, no and a line without a code", relaytest.Script{End: raw("554-no\r\nsee our page\r\n554 5.7.1 no\r\n")}, "bounce", "bounce"},
		{"RCPT", relaytest.Script{Rcpt: raw("250-ok\r\n550 5.1.1 no\r\n")}, "defer", "bounce"},
		{"MAIL", relaytest.Script{Mail: raw("250-ok\r\n550 5.7.1 no\r\n")}, "defer", "bounce"},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, c.script, func(t *testing.T, w *relaytest.World, h *relaytest.Host, e *Engine) {
				job := jobTo(t, modeT)
				r := e.Deliver(context.Background(), job)
				if how(r) != c.first || c.first == "defer" && (failureOf(r).Reason != events.ReplyMixed || failureOf(r).Reply.Code == 0) {
					t.Fatalf("first: %s %+v", how(r), failureOf(r))
				}
				job.Delivery.Last = &r.Attempt
				if r = e.Deliver(context.Background(), job); how(r) != c.again {
					t.Errorf("again: %s %+v", how(r), failureOf(r))
				}
			})
		})
	}
	// What may have been taken goes to no other host in the same attempt.
	w := relaytest.Start(t)
	first := w.Host(t, "mx1.example.test", relaytest.Script{End: raw("250-ok\r\n554 5.7.1 no\r\n")})
	second := w.Host(t, "mx2.example.test")
	engine(t, w, routeTo(first, second)).Deliver(context.Background(), jobTo(t, modeT))
	if second.Connections() > 0 {
		t.Error("the second host was asked")
	}
}
