package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// The first line of check says how mail would go, and the line of each host what
// its row and its class mean.
func TestCheckSaysHow(t *testing.T) {
	w := relaytest.Start(t)
	selfSigned := func(name string) relaytest.Script {
		return relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{name}, SelfSigned: true}}}
	}
	w.Host(t, "mx.good.test")
	w.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	w.Host(t, "mx.selfsigned.test", selfSigned("mx.selfsigned.test"))
	w.Host(t, "mx.broken.test", relaytest.Script{StartTLS: relaytest.Reply{Code: 554}})
	w.Host(t, "mx.helo.test", relaytest.Script{NoTLS: true, EHLO: relaytest.Reply{Code: 502}})
	w.Host(t, "mx1.mixed.test")
	w.Host(t, "mx2.mixed.test", relaytest.Script{NoTLS: true})
	w.Host(t, "mx1.worse.test", relaytest.Script{NoTLS: true})
	w.Host(t, "mx2.worse.test")
	file := configFile(t, worldConfig(t, w))
	for _, c := range []struct{ args, first, host string }{
		{"good.test", "good.test: deliverable, encrypted",
			"mx.good.test: is encrypted, with a valid certificate (row ENC, ok: good enough)"},
		{"notls.test", "notls.test: deliverable, in clear: mx.notls.test offers no STARTTLS",
			"mx.notls.test: offers no STARTTLS (row A4, ok: good enough)"},
		{"selfsigned.test", "selfsigned.test: deliverable, encrypted, and the certificate of mx.selfsigned.test is not valid (cert_untrusted)",
			"mx.selfsigned.test: has a certificate that is not valid (row C7, ok: good enough; cert_untrusted)"},
		{"broken.test", "broken.test: deliverable, in clear: mx.broken.test failed at TLS, and takes mail in clear",
			"mx.broken.test: failed at TLS, and takes mail in clear (row A4, ok: good enough)"},
		{"helo.test", "helo.test: deliverable, in clear: mx.helo.test offers no STARTTLS", ""},
		{"mixed.test", "mixed.test: deliverable, encrypted; should it come to mx2.mixed.test, in clear: mx2.mixed.test offers no STARTTLS", ""},
		{"worse.test", "worse.test: deliverable, in clear: mx1.worse.test offers no STARTTLS", ""},
		{"notls.test --require-tls", "notls.test: would be blocked: TLS required but not supported",
			"mx.notls.test: offers no STARTTLS (row A4, conclusive: it cannot do better; starttls_not_offered); fails encryption demanded by account"},
		{"selfsigned.test --require-tls", "selfsigned.test: deliverable, encrypted, and the certificate of mx.selfsigned.test is not valid (cert_untrusted)", ""},
	} {
		got := program(t, nil, append(append([]string{"check"}, strings.Fields(c.args)...), "--config", file)...)
		if first := firstLine(got.stdout); first != c.first && !strings.HasPrefix(first, c.first+":") {
			t.Errorf("check %s begins\n%s\nwant\n%s\n%s", c.args, first, c.first, got.stderr)
		}
		if !strings.Contains(got.stdout, "\n"+c.host) {
			t.Errorf("check %s does not say %q:\n%s", c.args, c.host, got.stdout)
		}
	}
}

// The first line of queue show says how a message went, or would go.
func TestQueueShowSaysHow(t *testing.T) {
	r := newRig(t)
	r.world.Host(t, "mx.good.test")
	r.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	r.world.Host(t, "mx.selfsigned.test", relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"mx.selfsigned.test"}, SelfSigned: true}}})
	later := relaytest.Reply{Code: 451, Text: "4.3.0 Later"}
	r.world.Host(t, "mx.later.test", relaytest.Script{NoTLS: true, Rcpt: later})
	r.world.Host(t, "mx.slow.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421}})
	receiver, _ := r.webhook()
	for _, c := range []struct {
		to    []string
		event string
		want  string
	}{
		{[]string{"a@good.test"}, "delivered", "delivered encrypted"},
		{[]string{"a@notls.test"}, "delivered", "delivered in clear"},
		{[]string{"a@selfsigned.test"}, "delivered", "delivered encrypted, to a certificate that is not valid"},
		{[]string{"a@later.test"}, "deferred", "waiting (would go in clear)"},
		{[]string{"a@slow.test"}, "deferred", "waiting"},
		{[]string{"b@good.test", "b@notls.test", "c@notls.test"}, "delivered", "1 delivered encrypted; 2 delivered in clear"},
	} {
		id := r.submit("app@sender.test", c.to...)
		for _, to := range c.to {
			r.event(receiver, to, c.event)
		}
		if got := firstLine(r.must("queue", "show", id)); got != "message "+id+": "+c.want {
			t.Errorf("to %v: %s\nwant %s", c.to, got, c.want)
		}
	}
	r.set(`{"require_tls":true}`)
	id := r.submit("app@sender.test", "d@notls.test")
	r.event(receiver, "d@notls.test", "bounce")
	out := r.must("queue", "show", id)
	if firstLine(out) != "message "+id+": blocked" || !strings.Contains(out, "to notls.test, TLS demanded (class t)") ||
		!strings.Contains(out, "offers no STARTTLS (row A4, conclusive: it cannot do better; starttls_not_offered)") {
		t.Errorf("%s", out)
	}
}

// The log tells where a message came from, how it went, in clear as well, and of a
// report what it is and which message it tells of.
func TestLogTellsTheWholeLife(t *testing.T) {
	o := startOwn(t)
	o.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	o.world.Host(t, "mx.never.test", relaytest.Script{Rcpt: relaytest.Reply{Code: 550, Text: "5.1.1 No such user"}})
	sender := o.world.Host(t, "mx.sender.test")
	key := strings.TrimPrefix(o.env[0], "TLSRELAY_BOOTSTRAP_KEY=")
	kid, _, err := account.SplitSecret(key)
	if err != nil {
		t.Fatal(err)
	}
	send := func(from, to string, login bool) (id string) {
		t.Helper()
		if login {
			if id, err = hand(o.submission, key, from, strings.NewReader("Subject: x\r\n\r\nHello\r\n"), to); err != nil {
				t.Fatal(err)
			}
			return id
		}
		k := talk(t, o.submission)
		k.say("EHLO app.test", "250")
		k.say("MAIL FROM:<"+from+">", "250")
		k.say("RCPT TO:<"+to+">", "250")
		k.say("DATA", "354")
		_, id, _ = strings.Cut(k.say("Subject: x\r\n\r\nHello\r\n.", "250"), "queued as ")
		return strings.TrimSpace(id)
	}
	clear := send("app@sender.test", "a@notls.test", true)
	null := send("", "b@notls.test", false)
	lost := send("app@sender.test", "c@never.test", true)
	report := sender.Await(t, 1)[0]
	reported := regexp.MustCompile(`Message-ID: <([\w-]{22})@`).FindStringSubmatch(string(report.Body))
	if reported == nil {
		t.Fatalf("%s", report.Body)
	}
	eventually(t, "all is told", func() bool { return strings.Count(o.logged(), `"event":"delivered"`) == 3 })
	told := func(id, event string) (found map[string]any) {
		t.Helper()
		for line := range strings.Lines(o.logged()) {
			var one map[string]any
			if json.Unmarshal([]byte(line), &one) == nil && one["id"] == id && one["event"] == event {
				found = one
			}
		}
		if found == nil {
			t.Fatalf("no line for %s of %s\n%s", event, id, o.logged())
		}
		return found
	}
	for _, c := range []struct {
		id, event string
		want      map[string]any
	}{
		{clear, "processed", map[string]any{"from": "<app@sender.test>", "client": "127.0.0.1", "key": kid, "account": "1", "tls": nil, "report": nil}},
		{clear, "delivered", map[string]any{"tls": "none", "from": nil}},
		{null, "processed", map[string]any{"from": "<>", "key": nil}},
		{lost, "bounce", map[string]any{"tls": "1.3", "report": nil}},
		{reported[1], "processed", map[string]any{"report": true, "report_of": lost, "from": "<>", "email": "app@sender.test"}},
		{reported[1], "delivered", map[string]any{"report": true, "report_of": lost, "tls": "1.3"}},
	} {
		line := told(c.id, c.event)
		for name, want := range c.want {
			if line[name] != want {
				t.Errorf("%s of %s: %s is %v, want %v", c.event, c.id, name, line[name], want)
			}
		}
		if size, _ := line["size"].(float64); (size > 0) != (c.event == "processed") {
			t.Errorf("%s of %s: size %v", c.event, c.id, line["size"])
		}
	}
	out, err := command("http://"+o.admin, "queue", "show", reported[1])
	if err != nil || !strings.Contains(out, "a report of this relay on message "+lost) {
		t.Errorf("%v\n%s", err, out)
	}
	o.signal(syscall.SIGTERM)
	if strings.Contains(o.logged(), key) {
		t.Error("the log has the key itself")
	}
}
