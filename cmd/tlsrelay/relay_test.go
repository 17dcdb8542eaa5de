package main

import (
	"strings"
	"testing"
	"time"

	"tlsrelay/cmd/tlsrelay/demo"
	"tlsrelay/configs"
	"tlsrelay/relay/relaytest"
)

// The demo is what newcomers see first; it says itself whether it went well.
func TestDemo(t *testing.T) {
	var out strings.Builder
	if err := demo.Play(t.Context(), &out, startForDemo); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
}

// One message to a good host: all its events, signed, under one id.
func TestDeliveredWithItsEvents(t *testing.T) {
	r := newRig(t)
	host := r.world.Host(t, "mx.good.test")
	receiver, publicKey := r.webhook()
	id := r.submit("app@sender.test", "a@good.test")
	m := host.Await(t, 1)[0]
	if m.TLSVersion == 0 || m.From != "app@sender.test" {
		t.Errorf("came as %+v", m)
	}
	processed, delivered := r.event(receiver, "a@good.test", "processed"), r.event(receiver, "a@good.test", "delivered")
	for _, e := range []map[string]any{processed, delivered} {
		if head, _, _ := strings.Cut(e["sg_message_id"].(string), "."); head != id {
			t.Errorf("sg_message_id %v does not begin with %s", e["sg_message_id"], id)
		}
	}
	if delivered["tls"] != 1.0 || delivered["cert_err"] != nil {
		t.Errorf("delivered event %v", delivered)
	}
	for _, q := range receiver.Requests() {
		if err := q.Verify(publicKey); err != nil {
			t.Error(err)
		}
	}
}

// A drop is an event, a row of the block list, a report to the sender and
// evidence that names host, reason and demand; and nothing went in clear.
func TestBlockIsToldEverywhere(t *testing.T) {
	r := newRig(t)
	notls := r.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	sender := r.world.Host(t, "mx.sender.test")
	receiver, _ := r.webhook()
	r.set(`{"require_tls":true}`)
	id := r.submit("app@sender.test", "a@notls.test")

	e := r.event(receiver, "a@notls.test", "bounce")
	if e["type"] != "blocked" || e["reason"] != "TLS required but not supported" || e["status"] != "5.7.10" || e["tls"] != 0.0 {
		t.Errorf("event %v", e)
	}
	if notls.LeakedInClear() {
		t.Errorf("in clear: %q", notls.ClearCommands())
	}
	code, body := r.call("GET", "/v3/suppression/blocks/a@notls.test", "")
	if code != 200 || !strings.Contains(body, `"reason":"TLS required but not supported"`) || !strings.Contains(body, `"status":"5.7.10"`) {
		t.Errorf("block list: %d %s", code, body)
	}
	report := sender.Await(t, 1)[0]
	text := string(report.Body)
	if report.From != "" || !strings.Contains(text, "TLS required but not supported") || strings.Contains(text, "Hello.") {
		t.Errorf("report from <%s>:\n%s", report.From, text)
	}
	for _, want := range []string{"Status: 5.7.10", "Action: failed", "starttls_not_offered"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	shown, err := r.command("queue", "show", id)
	if err != nil || !strings.Contains(shown, "starttls_not_offered") || !strings.Contains(shown, "fails encryption demanded by account") {
		t.Errorf("queue show: %v\n%s", err, shown)
	}
	list, err := r.command("blocks", "list")
	if err != nil || !strings.Contains(list, "a@notls.test") {
		t.Errorf("blocks list: %v\n%s", err, list)
	}
}

// What waits for a host that is down goes out after a restart.
func TestRestartContinues(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Delivery.RetryAfter = time.Second })
	down := relaytest.Script{Greeting: relaytest.Reply{Code: 421}}
	host := r.world.Host(t, "mx.slow.test", down)
	receiver, _ := r.webhook()
	r.submit("app@sender.test", "a@slow.test")
	r.event(receiver, "a@slow.test", "deferred")
	r.stop()
	if err := host.SetScript(relaytest.Script{}); err != nil {
		t.Fatal(err)
	}
	r.start()
	host.Await(t, 1)
	r.event(receiver, "a@slow.test", "delivered")
}

// When every domain violates at once, mail is held and not dropped, until the
// operator says that the fault is not ours.
func TestGuardHoldsMassViolation(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Delivery.ViolationGuardDomains = 3
		c.Delivery.RetryAfter = time.Hour
	})
	receiver, _ := r.webhook()
	r.set(`{"require_tls":true}`)
	for i, want := range []string{"bounce", "bounce", "deferred", "deferred"} {
		name := string(rune('a'+i)) + ".test"
		r.world.Host(t, "mx."+name, relaytest.Script{NoTLS: true})
		r.submit("app@sender.test", "x@"+name)
		e := r.event(receiver, "x@"+name, want)
		if words, _ := e["response"].(string); want == "deferred" && strings.Contains(words, "required but not supported") {
			t.Errorf("a deferral speaks of a refusal: %s", words)
		}
	}
	if out, err := r.command("queue", "guard"); err != nil || !strings.HasPrefix(out, "holding") {
		t.Errorf("guard: %v %s", err, out)
	}
	if out, err := r.command("queue", "guard", "--release"); err != nil || out != "not holding\n" {
		t.Errorf("guard --release: %v %s", err, out)
	}
	if out, err := r.command("queue", "retry", "--all"); err != nil || out != "2 deliveries\n" {
		t.Errorf("retry: %v %s", err, out)
	}
	r.event(receiver, "x@d.test", "bounce")
}
