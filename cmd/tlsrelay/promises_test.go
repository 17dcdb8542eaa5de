package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/events"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/relaytest"
)

// A drop of everything gives up what is there, and not the reports that tell
// the senders of it.
func TestDropKeepsItsReports(t *testing.T) {
	r := newRig(t)
	later := relaytest.Script{Rcpt: relaytest.Reply{Code: 451, Text: "4.3.0 Later"}}
	r.world.Host(t, "mx.slow.test", later)
	sender := r.world.Host(t, "mx.sender.test", later)
	receiver, _ := r.webhook()
	for _, who := range []string{"a", "b", "c"} {
		r.submit("app@sender.test", who+"@slow.test")
		r.event(receiver, who+"@slow.test", "deferred")
	}
	if out := r.must("queue", "drop", "--all"); out != "3 deliveries\n" {
		t.Errorf("drop: %s", out)
	}
	var rows []relay.QueueRow
	r.decode(r.must("queue", "list", "--json"), &rows)
	if len(rows) != 1 || rows[0].Destination != "sender.test" || rows[0].Waiting != 3 {
		t.Errorf("after the drop: %+v", rows)
	}
	r.calm(sender)
}

// A policy that is set while an attempt waits for a slow host holds for it: the
// message is not handed over by the old one, and there is no wait for the next
// attempt either.
func TestPolicyOvertakesAnAttempt(t *testing.T) {
	r := newRig(t)
	slow := r.world.Host(t, "mx.slow.test", relaytest.Script{NoTLS: true, Greeting: relaytest.Reply{Delay: 8 * time.Second, Times: 1}})
	receiver, _ := r.webhook()
	r.submit("app@sender.test", "a@slow.test")
	eventually(t, "the attempt has begun", func() bool { return slow.Open() > 0 })
	r.set(`{"require_tls":true}`)
	e := r.event(receiver, "a@slow.test", "bounce")
	if e["type"] != "blocked" || e["reason"] != events.TLSBlocked || slow.LeakedInClear() {
		t.Errorf("%v; in clear: %q", e, slow.ClearCommands())
	}
	r.calm(slow)
}

// Whatever an attempt waits for, and whoever forbids it to go on, it ends within a
// second or two: the host takes a minute for each of its answers, and gets nothing.
func TestPolicyEndsAnyWait(t *testing.T) {
	r := newRig(t)
	r.must("policy", "set", "--enforce-on-subusers")
	minute := relaytest.Reply{Delay: time.Minute, Times: 1}
	waits := map[string]relaytest.Script{
		"greeting": {Greeting: minute}, "mail": {Mail: minute}, "rcpt": {Rcpt: minute},
		"data": {Data: minute, Keywords: []string{"PIPELINING"}}, "chunk": {Chunk: minute},
	}
	hosts := make(map[string]*relaytest.Host)
	for name, script := range waits {
		script.NoTLS = true
		waits[name] = script
		hosts[name] = r.world.Host(t, "mx."+name+".test", script)
	}
	changes := map[string]func(shop string){
		"account": func(shop string) {
			if code, body := r.call("PATCH", "/v3/user/settings/enforced_tls", `{"require_tls":true}`, "on-behalf-of", shop); code != 200 {
				t.Errorf("%d %s", code, body)
			}
		},
		"domain rules": func(shop string) {
			for name := range waits {
				if code, body := r.call("PUT", "/relay/v1/domains/"+name+".test", `{"require_tls":true}`, "on-behalf-of", shop); code != 200 {
					t.Errorf("%d %s", code, body)
				}
			}
		},
		"parent's floor":    func(string) { r.set(`{"require_tls":true}`) },
		"the account's end": func(shop string) { r.must("account", "delete", shop) },
	}
	n, seen := 0, make(map[string]int)
	for change, make := range changes {
		t.Run(change, func(t *testing.T) {
			n++
			shop := fmt.Sprintf("shop%d", n)
			key := r.newSubuser(shop)

			for name, script := range waits {
				hosts[name].SetScript(script)
				seen[name] = hosts[name].Connections()
				_, err := r.trySubmit(key.Secret, "app@sender.test", "a@"+name+".test")
				if err != nil {
					t.Fatal(err)
				}

			}
			for name, h := range hosts {
				eventually(t, "the attempt waits: "+name, func() bool { return h.Connections() > seen[name] })
			}
			begin := time.Now()
			make(shop)
			eventually(t, "nothing waits for the hosts", func() bool {
				var rows []relay.QueueRow
				r.decode(r.must("queue", "list", "--json"), &rows)
				return !slices.ContainsFunc(rows, func(row relay.QueueRow) bool {
					_, ours := waits[strings.TrimSuffix(row.Destination, ".test")]
					return ours
				})
			})
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("ended after %v", took)
			}
			r.set(`{"require_tls":false}`)
		})
	}
	for name, h := range hosts {
		if h.Accepted() > 0 || strings.Contains(h.Sessions()[0].Clear, "Hello.") && name != "chunk" {
			t.Errorf("%s: content went out in clear", name)
		}
		h.Close()
	}
}

// check with an account begins with what holds for its mail, rules for
// domains included, and the other flags change that. Trouble is no verdict.
func TestCheckOfAnAccount(t *testing.T) {
	r := newRig(t)
	r.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	r.world.Host(t, "mx.other.test", relaytest.Script{NoTLS: true})
	if code, body := r.call("PUT", "/relay/v1/domains/notls.test", `{"require_tls":true}`); code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	url := "TLSRELAY_ADMIN_URL=http://" + r.app.admin.addr()
	for _, c := range []struct {
		url  string
		args []string
		code int
	}{
		{url, []string{"other.test", "--account", "parent"}, 0},
		{url, []string{"other.test", "--account", "parent", "--require-tls"}, 1},
		{url, []string{"notls.test", "--account", "parent"}, 1},
		{url, []string{"notls.test", "--account", "nobody"}, 2},
		{url, []string{"not..a.domain", "--account", "parent"}, 64},
		{"TLSRELAY_ADMIN_URL=http://127.0.0.1:1", []string{"other.test", "--account", "parent"}, 2},
	} {
		got := program(t, []string{c.url}, append([]string{"check"}, c.args...)...)
		if got.code != c.code {
			t.Errorf("check %v: exit %d, want %d\n%s%s", c.args, got.code, c.code, got.stdout, got.stderr)
		}
	}
	r.set(`{"require_tls":true}`)
	var rep deliver.Report
	r.decode(r.must("check", "other.test", "--account", "parent", "--require-tls=false", "--json"), &rep)
	if !rep.Deliverable() {
		t.Errorf("--require-tls=false does not change the account's: %+v", rep.Failure)
	}
}

// What the commands print as JSON has the names and types of the API.
func TestSettingsAsJSON(t *testing.T) {
	r := newRig(t)
	var got map[string]any
	r.decode(r.must("policy", "set", "--require-tls", "--json"), &got)
	for name, want := range map[string]any{
		"require_tls": true, "require_valid_cert": false, "version": 1.1, "on_violation": "drop",
		"require_forward_secrecy": false, "mx_auth_required": false, "requiretls": "strict", "enforce_on_subusers": false,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	r.newSubuser("shop")
	r.fails("for the parent account", "policy", "set", "--account", "shop", "--enforce-on-subusers")
}

// A relay that drains takes no new mail, and says so.
func TestNotReadyWhileDraining(t *testing.T) {
	r := newRig(t, trusting)
	readyz := func() (code int) {
		res, err := http.Get("http://" + r.app.admin.addr() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if err := json.NewDecoder(res.Body).Decode(new(map[string]string)); err != nil {
			t.Error(err)
		}
		return res.StatusCode
	}
	if code := readyz(); code != 200 {
		t.Errorf("a running relay: %d", code)
	}
	busy := talk(t, r.app.submission.Addrs()[0].String())
	busy.say("EHLO app.test", "250")
	busy.say("MAIL FROM:<app@sender.test>", "250")
	ended := make(chan struct{})
	go func() { r.stop(); close(ended) }()
	eventually(t, "the relay says that it drains", func() bool { return readyz() == 503 })
	busy.say("RSET", "250")
	busy.hear("421")
	<-ended
}

// Faults as JSON have keys in the letters of every other answer, and are a
// list even when there is none.
func TestFaultsAsJSON(t *testing.T) {
	for env, want := range map[string]string{
		"TLSRELAY_DELIVERY_PORT=25": `{"faults":[],"ok":true,"warnings":[]}`,
		"TLSRELAY_DELIVERY_PORT=x":  `{"faults":[{"file":"","line":0,"key":"TLSRELAY_DELIVERY_PORT","text":"must be a whole number"}],"ok":false,"warnings":[]}`,
		"TLSRELAY_HOSTNAME=relay":   `{"faults":[],"ok":true,"warnings":[{"file":"","line":0,"key":"TLSRELAY_HOSTNAME","text":"\"relay\" is not a fully qualified name: EHLO gives an address literal instead, and hosts that want a name refuse it"}]}`,
	} {
		var got bytes.Buffer
		if err := json.Compact(&got, []byte(program(t, []string{"TLSRELAY_HOSTNAME=relay.example", env}, "config", "check", "--json").stdout)); err != nil || got.String() != want {
			t.Errorf("%s: %v\n%s, want\n%s", env, err, got.String(), want)
		}
	}
}

// The first start shows what works whatever it listens on: it is not shown again.
func TestFirstStartWithImplicitTLSAlone(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Submission.ListenTLS, c.Submission.Listen = c.Submission.Listen, nil
	})
	shown := firstKey{"SG.x", "data/first-api-key"}.welcome(r.app, false)
	if want := "curl --url smtps://" + r.app.submission.AddrsTLS()[0].String() + " --insecure --user \"apikey:$KEY\""; !strings.Contains(shown, want) {
		t.Errorf("no %q in\n%s", want, shown)
	}
}

// Names of accounts fit into the header that names them.
func TestAccountNames(t *testing.T) {
	r := newRig(t)
	for _, args := range [][]string{{"a b"}, {"a/b"}, {"m\u00fcller"}, {"a\x7f"}, {"--customer", "a b"}, {strings.Repeat("x", 65)}} {
		r.fails("give one name", append([]string{"account", "create"}, args...)...)
	}
	r.fails("exists already", "account", "create", "parent")
	r.must("account", "create", "--customer", "c-1")
}
