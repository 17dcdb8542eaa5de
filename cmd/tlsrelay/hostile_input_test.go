package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"tlsrelay/configs"
	"tlsrelay/relay/relaytest"
)

// What a submitter gets wrong is refused with the class that says whether
// trying again is any use, and the conversation goes on.
func TestBadSubmissions(t *testing.T) {
	r := newRig(t, trusting)
	good := r.world.Host(t, "mx.good.test")
	k := talk(t, r.app.submission.Addrs()[0].String())
	k.say("EHLO app.test", "250")
	for _, c := range []struct{ line, want string }{
		{"MAIL FROM:<app@sender.test", "501 5.1.7"},
		{"MAIL FROM:<app sender@sender.test>", "501 5.1.7"},
		{"MAIL FROM:<app@>", "501 5.1.7"},
		{"MAIL FROM:<app@-sender-.test>", "501 5.1.7"},
		{"MAIL FROM:<app@[300.1.1.1]>", "501 5.1.7"},
		{"MAIL FROM:<app@sender.test> COLOUR=blue", "555 5.5.4"},
		{"MAIL FROM:<app@sender.test> SIZE=4000000000", "552 5.3.4"},
		{"MAIL FROM:<app@sender.test> REQUIRETLS", "530 5.7.10"},
		{"RCPT TO:<a@good.test>", "503 5.5.1"},
		{"DATA", "503 5.5.1"},
		{"MAIL FROM:<app@sender.test>", "250 2.1.0"},
		{"RCPT TO:<a@good..test>", "501 5.1.3"},
		{"RCPT TO:<@good.test>", "501 5.1.3"},
		{"RCPT TO:<" + strings.Repeat("x", 65) + "@good.test>", "501 5.1.3"},
		{"RCPT TO:<a@" + strings.Repeat("x", 64) + ".test>", "501 5.1.3"},
		{"RCPT TO:<hostmaster>", "501 5.1.3"},
		{"RCPT TO:<a@good.test> NOTIFY=SOMETIMES", "5"},
		{"DATA", "503 5.5.1"},
		{"BOGUS", "50"},
		{"VERB", "50"},
		{"RCPT TO:<a@good.test>", "250 2.1.5"},
		{"RSET", "250 2.0.0"},
	} {
		k.say(c.line, c.want)
	}
	for _, c := range []struct{ text, want string }{
		{"X-SMTPAPI: {\"category\":\r\n\r\nx", "550 5.6.0"},
		{"X-SMTPAPI: {\"to\":[\"b@good.test\"]}\r\n\r\nx", "550 5.6.0"},
		{"X-SMTPAPI: [1]\r\n\r\nx", "550 5.6.0"},
		{strings.Repeat("Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\r\n", 51) + "\r\nx", "554 5.4.6"},
		{"Subject: x\r\n\r\n\x00.", "550 5.6.0"},
		{"no header at all", "250 2.0.0"},
		{"Subject: \xff\xfe\r\n\r\nx", "250 2.0.0"},
		{"Subject: NUL\r\n\r\n\x00", "250 2.0.0"},
		{"From app Sat Jan  3 01:05:34 1996\nSubject: bare\n\nline\rfeed\n.\nMAIL FROM:<evil@sender.test>\n..\n.\r\nend", "250 2.0.0"},
	} {
		k.say("MAIL FROM:<app@sender.test>", "250")
		k.say("RCPT TO:<a@good.test>", "250")
		k.say("DATA", "354")
		k.say(c.text+"\r\n.", c.want)
	}
	k.say("QUIT", "221 2.0.0")
	for _, m := range good.Await(t, 4) {
		text := string(m.Body)
		if strings.ContainsAny(strings.ReplaceAll(text, "\r\n", ""), "\r\n") {
			t.Errorf("not only CRLF came: %q", text)
		}
		const bare = "Subject: bare\r\n\r\nline feed\r\n.\r\nMAIL FROM:<evil@sender.test>\r\n.\r\n.\r\nend\r\n"
		if strings.Contains(text, "bare") && (!strings.HasSuffix(text, bare) || strings.Contains(text, "1996")) {
			t.Errorf("bare LF came as %q", text)
		}
	}
	if n := r.metric(`tlsrelay_submission_messages_total{outcome="5xx"}`); n != 5 {
		t.Errorf("%v refused messages are counted", n)
	}
	r.calm(good)
	if n := good.Accepted(); n != 4 {
		t.Errorf("%d messages came", n)
	}
}

// What the DNS says, or fails to say, of a domain: final answers bounce,
// trouble waits.
func TestBadDomains(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Delivery.AllowPrivateAddresses = true })
	receiver, _ := r.webhook()
	z := r.world.Zone
	z.NullMX("nullmx.test")
	z.Trouble("servfail.test", 0, relaytest.Trouble{Rcode: 2})
	z.Trouble("refused.test", 0, relaytest.Trouble{Rcode: 5})
	z.Trouble("garbled.test", 0, relaytest.Trouble{Raw: []byte("\x81\x80\x00\x01\x00\xff\x00\x00\x00\x00 garbage")})
	z.Trouble("empty.test", 0, relaytest.Trouble{Raw: []byte{}})
	z.CNAME("loop.test", "pool.test")
	z.CNAME("pool.test", "loop.test")
	z.MX("noaddress.test", "mx.elsewhere.test", 10)
	z.TXT("nomail.test", "v=spf1 -all")
	z.MX("lookup-trouble.test", "mx.servfail.test", 10)
	z.Trouble("mx.servfail.test", 0, relaytest.Trouble{Rcode: 2})
	for domain, want := range map[string]struct{ event, status, typ string }{
		"nullmx.test":         {"bounce", "5.1.10", "bounce"},
		"nowhere.test":        {"bounce", "5.1.2", "bounce"},
		"nomail.test":         {"bounce", "5.4.4", "blocked"}, // the domain exists, and may have a host tomorrow
		"servfail.test":       {"deferred", "", ""},
		"refused.test":        {"deferred", "", ""},
		"garbled.test":        {"deferred", "", ""},
		"empty.test":          {"deferred", "", ""},
		"loop.test":           {"deferred", "", ""},
		"noaddress.test":      {"deferred", "", ""},
		"lookup-trouble.test": {"deferred", "", ""},
	} {
		if _, err := r.trySubmit(r.key, "", "a@"+domain); err != nil {
			t.Fatal(err)
		}
		e := r.event(receiver, "a@"+domain, want.event)
		if want.event == "bounce" && (e["status"] != want.status || e["type"] != want.typ) {
			t.Errorf("%s: %v", domain, e)
		}
	}
	if n := r.metric(`tlsrelay_dns_lookups_total`); n == 0 {
		t.Error("no look-ups are counted")
	}
}

// Malformed calls of the API change nothing and are the caller's fault.
func TestBadCalls(t *testing.T) {
	r := newRig(t)
	const tls = "/v3/user/settings/enforced_tls"
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"PATCH", tls, ``, 400},
		{"PATCH", tls, `{`, 400},
		{"PATCH", tls, `[]`, 400},
		{"PATCH", tls, `{"require_tls":"yes"}`, 400},
		{"PATCH", tls, `{"require_tls":true,"version":1.4}`, 400},
		{"PATCH", tls, `{"require_tls":true,"version":1e999999999}`, 400},
		{"PATCH", tls, `{"require_tls":true} {}`, 400},
		{"PATCH", tls, strings.Repeat(`[`, 1000), 400},
		{"PATCH", tls, strings.Repeat(` `, 100_000), 413},
		{"PATCH", tls, "{\"require_tls\":\xff}", 400},
		{"PATCH", "/relay/v1/settings", `{"on_violation":"ignore"}`, 400},
		{"PUT", "/relay/v1/domains/exa..mple", `{}`, 400},
		{"POST", "/relay/v1/check", `{"domain":"a b"}`, 400},
		{"POST", "/v3/api_keys", `{"name":"x","scopes":["mail.sned"]}`, 400},
		{"POST", "/v3/user/webhooks/event/settings", `{"url":"gopher://x","enabled":true}`, 400},
		{"GET", "/v3/suppression/blocks?limit=x", ``, 400},
		{"GET", "/relay/v1/messages/x", ``, 404},
		{"POST", "/v3/nowhere", `{}`, 404},
		{"PUT", tls, `{}`, 405},
	} {
		code, body := r.call(c.method, c.path, c.body)
		if code != c.want {
			t.Errorf("%s %s %.60s: %d %s, want %d", c.method, c.path, c.body, code, body, c.want)
		}
	}
	if code, body := r.call("GET", tls, ""); code != 200 || body != `{"require_tls":false,"require_valid_cert":false,"version":1.1}` {
		t.Errorf("afterwards: %d %s", code, body)
	}
}

// Without room, mail is put off and nothing else stops.
func TestNoRoom(t *testing.T) {
	r := newRig(t, trusting, func(c *configs.Config) { c.MinFreeDisk = 1 << 62 })
	k := talk(t, r.app.submission.Addrs()[0].String())
	k.say("EHLO app.test", "250")
	for range 2 {
		k.say("MAIL FROM:<app@sender.test>", "250")
		k.say("RCPT TO:<a@good.test>", "250")
		k.say("DATA", "354")
		k.say("Subject: x\r\n\r\nx\r\n.", "452 4.3.1")
	}
	large := fmt.Sprintf("Subject: x\r\n\r\n%s.", strings.Repeat(strings.Repeat("x", 76)+"\r\n", 10_000))
	k.say("MAIL FROM:<app@sender.test>", "250")
	k.say("RCPT TO:<a@good.test>", "250")
	k.say("DATA", "354")
	k.say(large, "452 4.3.1")
	k.say("QUIT", "221")
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503} {
		res, err := http.Get("http://" + r.app.admin.addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("GET %s: %s", path, res.Status)
		}
	}
	r.set(`{"require_tls":true}`) // the reserve is for this
	if n := r.metric(`tlsrelay_submission_messages_total{outcome="4xx"}`); n != 3 {
		t.Errorf("%v messages put off are counted", n)
	}
	r.calm()
}
