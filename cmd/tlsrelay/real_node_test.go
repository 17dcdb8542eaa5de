//go:build realclients

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tlsrelay/events/webhook"
	"tlsrelay/relay/relaytest"
)

// node runs a script of testdata/clients.
func node(t *testing.T, script, stdin string, env ...string) string {
	t.Helper()
	needNodeModules(t)
	cmd := realCommand(t, env, "node", script)
	cmd.Dir = filepath.Join("testdata", "clients")
	cmd.Stdin = strings.NewReader(stdin)
	return succeed(t, cmd)
}

func needNodeModules(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(filepath.Join("testdata", "clients", "node_modules")); err != nil {
		t.Fatalf("%v; make clients installs it", err)
	}
}

// SendGrid's own sample for changing the settings, with another base URL.
func TestRealNodePatchSample(t *testing.T) {
	r := newRig(t)
	const want = `{"require_tls":true,"require_valid_cert":true,"version":1.1}`
	out := node(t, "patch.js", "", "BASE_URL=http://"+r.app.api.addr(), "SENDGRID_API_KEY="+r.key)
	if out != "200\n"+want+"\n" {
		t.Errorf("the sample printed %q", out)
	}
	if _, stored := r.call("GET", "/v3/user/settings/enforced_tls", ""); strings.TrimSpace(stored) != want {
		t.Errorf("stored is %s", stored)
	}
}

// The settings as users of the library write them, errors included; both
// with and without a slash at the end of the base URL.
func TestRealNodeSettings(t *testing.T) {
	for _, slash := range []string{"", "/"} {
		r := newRig(t)
		r.subuser("sub1")
		node(t, "settings.js", "", "BASE_URL=http://"+r.app.api.addr()+slash, "SENDGRID_API_KEY="+r.key, "SUBUSER=sub1")
	}
}

// subuser makes a subuser by the public API.
func (r *rig) subuser(name string) {
	r.t.Helper()
	code, body := r.call("POST", "/v3/subusers", fmt.Sprintf(
		`{"username":%q,"email":"%[1]s@sender.test","password":"long enough 1!","ips":["192.0.2.1"]}`, name))
	if code != 201 {
		r.t.Fatalf("POST /v3/subusers: %d %s", code, body)
	}
}

// X-SMTPAPI in both forms that nodemailer gives it; the header is gone from
// what the recipient gets, and what it said is in the events.
func TestRealNodemailer(t *testing.T) {
	r := newRig(t)
	host := r.world.Host(t, "mx.good.test")
	receiver, _ := r.webhook()
	ca, err := os.ReadFile(r.certificate())
	if err != nil {
		t.Fatal(err)
	}
	node(t, "submit.js", "", append(r.submitter("app@sender.test", "a@good.test"), "CA="+string(ca))...)

	ids := map[string]bool{}
	for _, m := range host.Await(t, 2) {
		if header(m.Body, "X-SMTPAPI") != "" {
			t.Errorf("X-SMTPAPI went out:\n%s", m.Body)
		}
		ids[header(m.Body, "Subject")] = true
	}
	if !ids["encoded"] || !ids["prepared"] {
		t.Errorf("delivered %v", ids)
	}
	delivered := r.events(receiver, 2, func(e map[string]any) bool { return e["event"] == "delivered" })
	for _, e := range delivered {
		if e["order"] != "42" || e["place"] != "Zürich" || fmt.Sprint(e["category"]) != "[receipts]" {
			t.Errorf("event %v", e)
		}
	}
}

// posted is one line of input of verify.js.
type posted struct {
	PublicKey string            `json:"publicKey"`
	Headers   map[string]string `json:"headers"` // by lower-case name, as Node gives them
	Body      []byte            `json:"body"`
}

// Every batch that the relay posts, with every kind of event in it, and every
// golden form of an event passes SendGrid's own check.
func TestRealNodeEventWebhook(t *testing.T) {
	lines := goldenPosts(t)
	for _, b := range everyKindOfEvent(t) {
		lines = append(lines, posted{b.publicKey, map[string]string{
			strings.ToLower(relaytest.SignatureHeader): b.request.Header.Get(relaytest.SignatureHeader),
			strings.ToLower(relaytest.TimestampHeader): b.request.Header.Get(relaytest.TimestampHeader),
		}, b.request.Body})
	}
	var stdin strings.Builder
	enc := json.NewEncoder(&stdin)
	for _, l := range lines {
		if err := enc.Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	if out, want := node(t, "verify.js", stdin.String()), fmt.Sprintf("%d verified, 0 bad\n", len(lines)); out != want {
		t.Errorf("verify.js printed %q, want %q", out, want)
	}
}

// goldenPosts signs the golden files of package events as they are.
func goldenPosts(t *testing.T) (lines []posted) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "events", "testdata", "golden", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("golden files: %v %v", files, err)
	}
	key, err := webhook.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	public, err := webhook.PublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		body, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		const timestamp = "1700000000"
		signature, err := webhook.Sign(key, timestamp, body)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, posted{public, map[string]string{
			strings.ToLower(webhook.SignatureHeader): signature,
			strings.ToLower(webhook.TimestampHeader): timestamp,
		}, body})
	}
	return lines
}

// batch is one POST to an account's webhook.
type batch struct {
	publicKey string
	request   relaytest.Request
}

// everyKindOfEvent makes a relay tell of each kind of event, with text of
// strangers in it that is hard on encoders, and gives what it posted.
func everyKindOfEvent(t *testing.T) (all []batch) {
	t.Helper()
	r := newRig(t, withoutGuard)
	r.world.Host(t, "mx.sender.test")
	r.world.Host(t, "mx.good.test")
	r.world.Host(t, "mx.slow.test", relaytest.Script{Mail: relaytest.Reply{Code: 451, Text: "4.7.1 später <greylisted> & \"so\"\n4.7.1 \u2028 \\"}})
	r.world.Host(t, "mx.gone.test", relaytest.Script{Rcpt: relaytest.Reply{Code: 550, Text: "5.1.1 nobody \xff\xfe here"}})
	r.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	receiver, publicKey := r.webhook()
	r.set(`{"require_tls":true}`)
	for address, kind := range map[string]string{
		"a@good.test": "delivered", "a@slow.test": "deferred", "a@gone.test": "bounce", "a@notls.test": "bounce",
	} {
		r.submit("app@sender.test", address)
		r.event(receiver, address, "processed")
		r.event(receiver, address, kind)
	}
	if e := r.event(receiver, "a@gone.test", "bounce"); e["type"] != "bounce" {
		t.Errorf("bounce event %v", e)
	}
	if e := r.event(receiver, "a@notls.test", "bounce"); e["type"] != "blocked" {
		t.Errorf("block event %v", e)
	}
	for _, q := range receiver.Requests() {
		all = append(all, batch{publicKey, q})
	}
	return all
}

// events waits until n events satisfy want, and gives those.
func (r *rig) events(receiver *relaytest.Receiver, n int, want func(map[string]any) bool) (found []map[string]any) {
	r.t.Helper()
	ctx, cancel := patience()
	defer cancel()
	all, err := receiver.WaitEvents(ctx, func(events []map[string]any) bool {
		found = nil
		for _, e := range events {
			if want(e) {
				found = append(found, e)
			}
		}
		return len(found) >= n
	})
	if err != nil {
		r.t.Fatalf("%d of %d events: %v; got %v", len(found), n, err, all)
	}
	return found
}
