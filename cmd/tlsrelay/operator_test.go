package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/api"
	"tlsrelay/relay/api/mail"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/relaytest"
)

// outcome is how a command line ended as a process.
type outcome struct {
	stdout, stderr string
	code           int
}

// program runs a command line in a process of its own, as a shell would.
func program(t testing.TB, env []string, args ...string) outcome {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append([]string{"TLSRELAY_TEST_RUN_MAIN=1", "GORACE=atexit_sleep_ms=0"}, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return outcome{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must is command for those that have to succeed.
func (r *rig) must(args ...string) string {
	r.t.Helper()
	out, err := r.command(args...)
	if err != nil {
		r.t.Fatalf("tlsrelay %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// fails runs a command that must fail with these words.
func (r *rig) fails(words string, args ...string) {
	r.t.Helper()
	out, err := r.command(args...)
	if err == nil || !strings.Contains(err.Error(), words) {
		r.t.Errorf("tlsrelay %s: got %v, want %q\n%s", strings.Join(args, " "), err, words, out)
	}
}

// check probes without a relay: 0 deliverable, 1 blocked or bounced, 2 could
// not find out, 64 usage.
func TestCheckExitCodes(t *testing.T) {
	w := relaytest.Start(t)
	w.Host(t, "mx.good.test")
	w.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	w.Host(t, "mx.selfsigned.test", relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"mx.selfsigned.test"}, SelfSigned: true}}})
	w.Host(t, "mx.busy.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421}})
	w.Zone.NullMX("nullmx.test")
	w.Zone.Trouble("broken.test", 0, relaytest.Trouble{Rcode: 2})
	file := configFile(t, worldConfig(t, w))
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"good.test", 0, "good.test: deliverable"},
		{"good.test --require-tls --require-valid-cert --version 1.3", 0, "TLS 1.3"},
		{"notls.test", 0, "deliverable"},
		{"notls.test --require-tls", 1, "would be blocked"},
		{"selfsigned.test --require-tls", 0, "cert_untrusted"},
		{"selfsigned.test --require-valid-cert", 1, "would be blocked"},
		{"nullmx.test", 1, "would bounce"},
		{"nowhere.test", 1, "would bounce"},
		{"broken.test", 2, "could not find out"},
		{"busy.test --require-tls", 2, "could not find out"},
		{"", 64, "DOMAIN"},
		{"good.test notls.test", 64, "DOMAIN"},
		{"good..test", 64, "not a domain name"},
		{"good.test --version 1.0", 64, "--version must be"},
		{"good.test --version tls", 64, "--version must be"},
		{"good.test --no-such-flag", 64, "no-such-flag"},
	} {
		got := program(t, nil, append(append([]string{"check"}, strings.Fields(c.args)...), "--config", file)...)
		if got.code != c.code || !strings.Contains(got.stdout+got.stderr, c.says) {
			t.Errorf("check %s: exit %d, want %d and %q\n%s%s", c.args, got.code, c.code, c.says, got.stdout, got.stderr)
		}
	}
	got := program(t, nil, "check", "notls.test", "--require-tls", "--json", "--config", file)
	var rep deliver.Report
	if err := json.Unmarshal([]byte(got.stdout), &rep); err != nil || got.code != 1 || rep.Ruling != policy.Block || len(rep.Hosts) != 1 {
		t.Errorf("exit %d, %v\n%s", got.code, err, got.stdout)
	}
	if got := program(t, nil, "check", "good.test", "--config", filepath.Join(t.TempDir(), "none.yaml")); got.code != 64 {
		t.Errorf("without its configuration: exit %d\n%s", got.code, got.stderr)
	}
}

// Words that make no sense are usage errors, faults of a configuration are
// all told with their lines, and a relay that does not run is said not to.
func TestWordsAndExitCodes(t *testing.T) {
	faulty := filepath.Join(t.TempDir(), "faulty.yaml")
	if err := os.WriteFile(faulty, []byte("colour: blue\ndelivery:\n  port: smtp\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	faults := []string{faulty + ":1: colour: unknown key", faulty + ":3: delivery.port: must be a whole number"}
	nowhere := []string{"TLSRELAY_ADMIN_URL=http://127.0.0.1:1"}
	for _, c := range []struct {
		args string
		env  []string
		code int
		says []string
	}{
		{"", nil, 0, []string{"serve", "check", "queue"}},
		{"version", nil, 0, []string{"tlsrelay "}},
		{"version --json", nil, 0, []string{`"version"`, `"go"`}},
		{"config defaults", nil, 0, []string{"max_connections_per_destination: 20"}},
		{"config check", nil, 0, []string{"ok"}},
		{"config check " + faulty, nil, 64, faults},
		{"config check --json " + faulty, nil, 64, []string{`"ok": false`, "unknown key"}},
		{"serve --config " + faulty, nil, 64, faults},
		{"config check", []string{"TLSRELAY_DELIVERY_PORT=x"}, 64, []string{"TLSRELAY_DELIVERY_PORT"}},
		{"config check a b", nil, 64, []string{"one file"}},
		{"bogus", nil, 64, []string{`"bogus"`}},
		{"queue bogus", nil, 64, []string{`"bogus"`}},
		{"serve now", nil, 64, nil},
		{"queue list", nowhere, 1, []string{"no relay answers at http://127.0.0.1:1"}},
		{"queue list --admin ://", nil, 64, []string{"--admin"}},
	} {
		got := program(t, c.env, strings.Fields(c.args)...)
		if got.code != c.code {
			t.Errorf("tlsrelay %s: exit %d, want %d\n%s%s", c.args, got.code, c.code, got.stdout, got.stderr)
		}
		for _, s := range c.says {
			if !strings.Contains(got.stdout+got.stderr, s) {
				t.Errorf("tlsrelay %s does not say %q:\n%s%s", c.args, s, got.stdout, got.stderr)
			}
		}
	}
	defaults := filepath.Join(t.TempDir(), "defaults.yaml")
	if err := os.WriteFile(defaults, []byte(program(t, nil, "config", "defaults").stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := program(t, nil, "config", "check", defaults); got.code != 0 {
		t.Errorf("the printed defaults do not hold: %s", got.stderr)
	}
}

// The operator's hands on the queue.
func TestQueueCommands(t *testing.T) {
	r := newRig(t)
	down := r.world.Host(t, "mx.slow.test", relaytest.Script{Rcpt: relaytest.Reply{Code: 451, Text: "4.3.0 Later"}})
	sender := r.world.Host(t, "mx.sender.test")
	receiver, _ := r.webhook()
	ids := map[string]string{}
	for _, who := range []string{"a", "b", "c"} {
		ids[who] = r.submit("app@sender.test", who+"@slow.test")
		r.event(receiver, who+"@slow.test", "deferred")
	}
	var rows []relay.QueueRow
	r.decode(r.must("queue", "list", "--json"), &rows)
	if len(rows) != 1 || rows[0].Destination != "slow.test" || rows[0].Waiting != 3 || rows[0].Held != 0 {
		t.Errorf("queue list: %+v", rows)
	}
	if out := r.must("queue", "list"); !strings.Contains(out, "slow.test") || !strings.Contains(out, "reply_temporary") {
		t.Errorf("queue list:\n%s", out)
	}
	if out := r.must("queue", "list", "slow.test", "--limit", "2"); strings.Count(out, "app@sender.test") != 2 || !strings.Contains(out, "1 more messages: --offset 2\n") {
		t.Errorf("queue list slow.test --limit 2:\n%s", out)
	}
	r.world.Host(t, "mx.slower.test", relaytest.Script{Rcpt: relaytest.Reply{Code: 451, Text: "4.3.0 Later"}})
	r.submit("app@sender.test", "z@slower.test")
	if out := r.must("queue", "list", "--limit", "1"); !strings.Contains(out, "\nslow.test ") || strings.Contains(out, "slower.test") || !strings.Contains(out, "1 more destinations: --after slow.test\n") {
		t.Errorf("queue list --limit 1:\n%s", out)
	}
	if out := r.must("queue", "list", "--after", "slow.test"); strings.Contains(out, "\nslow.test ") || !strings.Contains(out, "slower.test") || strings.Contains(out, "more") {
		t.Errorf("queue list --after slow.test:\n%s", out)
	}
	r.fails("at most 100000", "queue", "list", "--limit", "100001")
	r.event(receiver, "z@slower.test", "deferred")
	r.must("queue", "drop", "--destination", "slower.test")
	sender.Await(t, 1)
	if out := r.must("queue", "show", ids["a"]); !strings.Contains(out, "a@slow.test") || !strings.Contains(out, "waiting") || !strings.Contains(out, "TLS 1.3") {
		t.Errorf("queue show:\n%s", out)
	}
	var ev mail.Evidence
	r.decode(r.must("queue", "show", ids["a"], "--json"), &ev)
	if ev.Message.ID.String() != ids["a"] || len(ev.Deliveries) != 1 || ev.Deliveries[0].Attempts != 1 {
		t.Errorf("queue show --json: %+v", ev)
	}

	if out := r.must("queue", "hold", ids["a"]); out != "1 deliveries\n" {
		t.Errorf("hold: %s", out)
	}
	if out := r.must("queue", "list", "slow.test", "--held"); !strings.Contains(out, ids["a"]) || strings.Contains(out, ids["b"]) {
		t.Errorf("queue list --held:\n%s", out)
	}
	if out := r.must("queue", "drop", ids["c"], "--reason", "sent by mistake"); out != "1 deliveries\n" {
		t.Errorf("drop: %s", out)
	}
	e := r.event(receiver, "c@slow.test", "bounce")
	if e["type"] != "blocked" || !strings.Contains(e["reason"].(string), "message dropped by the operator: sent by mistake") {
		t.Errorf("event of the drop: %v", e)
	}
	if report := string(sender.Await(t, 2)[1].Body); !strings.Contains(report, "sent by mistake") {
		t.Errorf("report of the drop:\n%s", report)
	}

	if err := down.SetScript(relaytest.Script{}); err != nil {
		t.Fatal(err)
	}
	down.HangUp() // the open connection plays the old script
	if out := r.must("queue", "retry", "--destination", "slow.test"); out != "1 deliveries\n" {
		t.Errorf("retry: %s", out)
	}
	r.event(receiver, "b@slow.test", "delivered")
	if n := down.Accepted(); n != 1 {
		t.Errorf("%d messages came, one of them held", n)
	}
	if out := r.must("queue", "release", "--all"); out != "1 deliveries\n" {
		t.Errorf("release: %s", out)
	}
	r.must("queue", "retry", ids["a"]) // released, it waits for its time
	r.event(receiver, "a@slow.test", "delivered")
	if out := r.must("queue", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("the queue at last: %s", out)
	}
	if out := r.must("queue", "show", ids["a"]); !strings.Contains(out, "delivered") {
		t.Errorf("a finished message:\n%s", out)
	}

	r.fails("not found", "queue", "show", relay.NewMessageID(time.Now()).String())
	r.fails("not a message id", "queue", "show", "x")
	r.fails("not a destination", "queue", "retry", "--destination", "a b")
	r.fails("not found", "queue", "retry", "--account", "nobody")
	r.fails("not found", "queue", "drop", relay.MessageID{}.String()) // which is not all of them
	for _, verb := range []string{"retry", "hold", "release", "drop"} {
		r.fails("name a message", "queue", verb)
		r.fails("name a message", "queue", verb, ids["a"], ids["b"])
	}
	r.fails("one destination", "queue", "list", "a.test", "b.test")
	r.fails("MESSAGE", "queue", "show")
	r.calm(down, sender)
}

// The block list by command.
func TestBlocksCommands(t *testing.T) {
	r := newRig(t)
	r.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	receiver, _ := r.webhook()
	r.set(`{"require_tls":true}`)
	for _, who := range []string{"a", "b", "c"} {
		r.submit("app@sender.test", who+"@notls.test")
		r.event(receiver, who+"@notls.test", "bounce")
	}
	listed := func(args ...string) (emails string) {
		var rows []events.Block
		r.decode(r.must(append([]string{"blocks", "list", "--json"}, args...)...), &rows)
		for _, b := range rows {
			if b.Reason != events.TLSBlocked || b.Status != "5.7.10" {
				t.Errorf("row %+v", b)
			}
			emails += b.Email[:1]
		}
		return emails
	}
	if got := listed(); len(got) != 3 {
		t.Errorf("listed %q", got)
	}
	if got := listed("--email", "b@"); got != "b" {
		t.Errorf("listed %q under b@", got)
	}
	r.must("blocks", "remove", "b@notls.test")
	if got := listed(); len(got) != 2 || strings.Contains(got, "b") {
		t.Errorf("listed %q after b was removed", got)
	}
	r.must("blocks", "remove", "--all")
	if got := listed(); got != "" {
		t.Errorf("listed %q after all were removed", got)
	}
	r.fails("give either addresses or --all", "blocks", "remove")
	r.fails("give either addresses or --all", "blocks", "remove", "--all", "a@notls.test")
	r.fails("not found", "blocks", "list", "--account", "nobody")
}

// The settings of an account by command; what is not named stays.
func TestPolicyCommands(t *testing.T) {
	r := newRig(t)
	r.must("policy", "set", "--require-tls", "--version", "1.2")
	r.must("policy", "set", "--on-violation", "defer", "--requiretls", "relaxed", "--mx-auth-required", "--require-forward-secrecy")
	var s api.Settings
	r.decode(r.must("policy", "show", "--json"), &s)
	want := api.Settings{
		TLSSettings:   api.TLSSettings{RequireTLS: true, Version: "1.2"},
		RelaySettings: api.RelaySettings{OnViolation: policy.Defer, RequireTLSOption: "relaxed", MXAuthRequired: true, ForwardSecrecy: true},
	}
	if s != want {
		t.Errorf("got %+v", s)
	}
	if code, body := r.call("GET", "/v3/user/settings/enforced_tls", ""); code != 200 || body != `{"require_tls":true,"require_valid_cert":false,"version":1.2}` {
		t.Errorf("the API says %d %s", code, body)
	}
	if out := r.must("policy", "show"); !strings.Contains(out, "require_tls              true") {
		t.Errorf("policy show:\n%s", out)
	}
	r.must("policy", "set", "--require-tls=false")
	r.decode(r.must("policy", "show", "--json"), &s)
	if want.RequireTLS = false; s != want {
		t.Errorf("got %+v", s)
	}
	r.fails("nothing to set", "policy", "set")
	r.fails("--version must be", "policy", "set", "--version", "1.0")
	r.fails("--requiretls must be", "policy", "set", "--requiretls", "lax")
	r.fails("on_violation must be", "policy", "set", "--on-violation", "ignore")
	r.fails("not found", "policy", "show", "--account", "nobody")
}

// newSubuser makes a subuser with a full-access key, by command.
func (r *rig) newSubuser(name string) api.Key {
	r.t.Helper()
	r.must("account", "create", name)
	var k api.Key
	r.decode(r.must("key", "create", "app", "--account", name, "--json"), &k)
	return k
}

// What an operator takes away is gone at once: for new connections, for those
// open, and for the API.
func TestRevokedAndDisabledAtOnce(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Submission.AllowPlaintextAuth = true })
	r.world.Host(t, "mx.good.test")
	k := r.newSubuser("shop")
	login := "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00apikey\x00"+k.Secret))
	connect := func() *talker {
		c := talk(t, r.app.submission.Addrs()[0].String())
		c.say("EHLO app.test", "250")
		return c
	}
	api := func(want int) {
		t.Helper()
		if code, body := r.call("GET", "/v3/user/settings/enforced_tls", "", "Authorization", "Bearer "+k.Secret); code != want {
			t.Errorf("the API says %d %s, want %d", code, body, want)
		}
	}
	open := connect()
	open.say(login, "235")
	open.say("MAIL FROM:<app@sender.test>", "250")
	open.say("RSET", "250")
	api(200)

	r.must("account", "disable", "shop")
	open.hear("421 4.7.0") // though it asks for nothing
	open.over()
	connect().say(login, "535 5.7.8")
	api(http.StatusUnauthorized)

	r.must("account", "enable", "shop")
	open = connect()
	open.say(login, "235")
	api(200)

	r.must("key", "revoke", k.ID)
	open.hear("421 4.7.0")
	open.over()
	connect().say(login, "535 5.7.8")
	api(http.StatusUnauthorized)
	r.fails("not found", "key", "revoke", k.ID)
	r.fails("cannot be disabled", "account", "disable", "parent")
	r.fails("cannot be deleted", "account", "delete", "parent")
	if _, err := r.trySubmit(r.key, "app@sender.test", "a@good.test"); err != nil {
		t.Errorf("the parent's key: %v", err)
	}
}

// Each account has its own settings and hears its own events; the parent may
// set a floor for all.
func TestSubusers(t *testing.T) {
	r := newRig(t)
	notls := r.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	k := r.newSubuser("shop")
	ofParent, _ := r.webhook()
	ofShop, _ := r.webhook("Authorization", "Bearer "+k.Secret)
	send := func(key, to string) {
		t.Helper()
		if _, err := r.trySubmit(key, "", to); err != nil {
			t.Fatal(err)
		}
	}
	r.must("policy", "set", "--account", "shop", "--require-tls")
	send(k.Secret, "shop1@notls.test")
	if e := r.event(ofShop, "shop1@notls.test", "bounce"); e["type"] != "blocked" {
		t.Errorf("the subuser's own demand: %v", e)
	}
	send(r.key, "parent1@notls.test")
	r.event(ofParent, "parent1@notls.test", "delivered")

	r.must("policy", "set", "--account", "shop", "--require-tls=false")
	send(k.Secret, "shop2@notls.test")
	r.event(ofShop, "shop2@notls.test", "delivered")

	r.must("policy", "set", "--require-tls", "--enforce-on-subusers")
	send(k.Secret, "shop3@notls.test")
	if e := r.event(ofShop, "shop3@notls.test", "bounce"); e["type"] != "blocked" || e["reason"] != events.TLSBlocked {
		t.Errorf("the parent's floor: %v", e)
	}
	send(r.key, "parent2@notls.test")
	r.event(ofParent, "parent2@notls.test", "bounce")
	if n := notls.Accepted(); n != 2 {
		t.Errorf("the host has %d messages", n)
	}
	for name, receiver := range map[string]*relaytest.Receiver{"parent": ofParent, "shop": ofShop} {
		all, err := receiver.Events()
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if !strings.HasPrefix(e["email"].(string), name) {
				t.Errorf("the webhook of %s hears of %v", name, e["email"])
			}
		}
	}
	var rows []events.Block
	r.decode(r.must("blocks", "list", "--account", "shop", "--json"), &rows)
	if len(rows) != 2 {
		t.Errorf("the subuser's block list: %+v", rows)
	}

	r.must("account", "create", "--customer", "4711")
	r.must("policy", "set", "--account", "account-id 4711", "--require-valid-cert")
	var all []api.Account
	r.decode(r.must("account", "list", "--json"), &all)
	if len(all) != 3 || !all[2].Settings.RequireValidCert || all[1].Settings.RequireValidCert {
		t.Errorf("accounts: %+v", all)
	}
	r.must("account", "delete", "shop")
	if _, err := r.trySubmit(k.Secret, "", "shop4@notls.test"); err == nil {
		t.Error("a deleted account submits")
	}
	r.fails("exists already", "account", "create", "--customer", "4711")
	r.fails("give either a username", "account", "create")
	r.fails("give one name", "account", "create", "two words")
	r.fails("no such scope", "key", "create", "x", "--scope", "mail.sned")
	r.fails("not found", "key", "list", "--account", "shop")
	r.calm(notls)
}

// An endpoint that fails is seen by the operator, and caught up when it works.
func TestWebhooksList(t *testing.T) {
	r := newRig(t)
	r.world.Host(t, "mx.good.test")
	receiver, _ := r.webhook()
	if out := r.must("webhooks", "list"); strings.Count(out, "\n") != 1 {
		t.Errorf("with nothing waiting:\n%s", out)
	}
	receiver.Script(relaytest.Response{Status: 500})
	r.submit("app@sender.test", "a@good.test")
	eventually(t, "the failing endpoint is listed", func() bool {
		var all []struct {
			Failures int
			LastCode int `json:"last_code"`
		}
		r.decode(r.must("webhooks", "list", "--json"), &all)
		return len(all) == 1 && all[0].Failures > 1 && all[0].LastCode == 500
	})
	receiver.Script()
	r.event(receiver, "a@good.test", "delivered")
	eventually(t, "nothing waits", func() bool { return strings.Count(r.must("webhooks", "list"), "\n") == 1 })
}

// With a token set, the listener opens only to it; health needs none.
func TestAdminToken(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Admin.Token = "s3cret" })
	r.fails("a token is needed", "queue", "list")
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 401, "/": 401, "/debug/pprof/": 401, "/admin/v1/queue": 401} {
		res, err := http.Get("http://" + r.app.admin.addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("GET %s without a token: %s", path, res.Status)
		}
	}
	url := "TLSRELAY_ADMIN_URL=http://" + r.app.admin.addr()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env  string
		code int
	}{
		{"TLSRELAY_ADMIN_TOKEN=s3cret", 0},
		{"TLSRELAY_ADMIN_TOKEN_FILE=" + file, 0},
		{"TLSRELAY_ADMIN_TOKEN=wrong", 1},
	} {
		if got := program(t, []string{url, c.env}, "account", "list"); got.code != c.code {
			t.Errorf("%s: exit %d\n%s", c.env, got.code, got.stderr)
		}
	}
}
