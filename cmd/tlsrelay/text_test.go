package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/zap"

	"tlsrelay/configs"
	"tlsrelay/events"
	"tlsrelay/relay/relaytest"
)

// wicked is what a stranger may say: a terminal is to obey it, or to show
// something else than what stands there.
const wicked = "\x1b]0;owned\x07\x1b[2Jno\u202efdp.exe\u202c pay\u200bpal\ufeff\u2066\U000e0041\x7f\xff end"

// clean wants text without hidden characters; line ends are the page's and the
// terminal's own.
func clean(t *testing.T, where, text string) {
	t.Helper()
	if !strings.Contains(text, "end") {
		t.Errorf("%s does not show what was said: %q", where, text)
	}
	for _, r := range strings.ReplaceAll(text, "\n", "") {
		if events.Hidden(r) {
			t.Errorf("%s shows %U: %q", where, r, text)
			return
		}
	}
}

// A host's words come clean wherever they are shown: webhook, API, page,
// terminal, report and log.
func TestStrangersWordsAreClean(t *testing.T) {
	o := startOwn(t)
	key := strings.TrimPrefix(o.env[0], "TLSRELAY_BOOTSTRAP_KEY=")
	r := &rig{t: t, world: o.world, key: key}
	url := "http://" + o.admin
	ask := func(address, path, body string) string {
		t.Helper()
		method := http.MethodGet
		if body != "" {
			method = http.MethodPost
		}
		req, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		req.Close = true
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		if res.StatusCode >= 300 {
			t.Fatalf("%s: %s %s", path, res.Status, text)
		}
		return string(text)
	}
	tell := func(args ...string) string {
		t.Helper()
		out, err := command(url, args...)
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return out
	}
	o.world.Host(t, "mx.never.test", relaytest.Script{Rcpt: relaytest.Reply{Raw: "550 5.1.1 " + wicked + "\r\n"}})
	o.world.Host(t, "mx.later.test", relaytest.Script{Rcpt: relaytest.Reply{Raw: "451 4.3.0 " + wicked + "\r\n"}})
	o.world.Host(t, "mx.greets.test", relaytest.Script{Greeting: relaytest.Reply{Raw: "554 " + wicked + "\r\n"}})
	sender := o.world.Host(t, "mx.sender.test")
	receiver := relaytest.StartReceiver(t)
	ask(o.api, "/v3/user/webhooks/event/settings", fmt.Sprintf(`{"url":%q,"enabled":true,"bounce":true,"deferred":true}`, receiver.URL()))

	ids := map[string]string{}
	for _, name := range []string{"never", "later", "greets"} {
		k := talk(t, o.submission)
		k.say("EHLO app.test", "250")
		k.say("MAIL FROM:<app@sender.test>", "250")
		k.say("RCPT TO:<a@"+name+".test>", "250")
		k.say("DATA", "354")
		_, id, _ := strings.Cut(k.say("Subject: x\r\n\r\nx\r\n.", "250"), "queued as ")
		ids[name] = strings.TrimSpace(id)
	}
	for name, kind := range map[string]string{"never": "bounce", "later": "deferred", "greets": "bounce"} {
		e := r.event(receiver, "a@"+name+".test", kind)
		clean(t, "the event", fmt.Sprint(e["reason"], e["response"]))
		clean(t, "queue show", tell("queue", "show", ids[name]))
		clean(t, "the API", ask(o.api, "/relay/v1/messages/"+ids[name], ""))
	}
	clean(t, "queue list", tell("queue", "list"))
	clean(t, "queue list DESTINATION", tell("queue", "list", "later.test"))
	clean(t, "the page", ask(o.admin, "/", ""))
	clean(t, "the report", strings.NewReplacer("\r", "", "\n\t", "\n").Replace(string(sender.Await(t, 2)[0].Body)))
	clean(t, "check", program(t, nil, "check", "greets.test", "--config", o.file).stdout)

	// Nor does one tenant write into the operator's terminal by names of his own.
	named, err := json.Marshal(map[string]any{"name": "my key\u202e\u200b end", "scopes": []string{"mail.send"}})
	if err != nil {
		t.Fatal(err)
	}
	ask(o.api, "/v3/api_keys", string(named))
	list := tell("key", "list")
	clean(t, "key list", list)
	if !strings.Contains(list, "my key?? end") {
		t.Errorf("key list: %q", list)
	}
	asJSON := tell("key", "list", "--json")
	clean(t, "key list --json", asJSON)
	var keys []struct{ Name string }
	if err := json.Unmarshal([]byte(asJSON), &keys); err != nil || !strings.Contains(fmt.Sprint(keys), "my key\u202e\u200b end") {
		t.Errorf("as JSON the name is not itself: %v %q", err, asJSON)
	}
	tell("queue", "drop", ids["later"], "--reason", "by\u202e mistake end")
	clean(t, "the reason of a drop", fmt.Sprint(r.event(receiver, "a@later.test", "bounce")["reason"]))
	o.signal(syscall.SIGTERM)
	clean(t, "the log", o.logged())
}

// Whatever comes into a line of the log, no hidden character leaves it, and
// nothing else is changed.
func TestLogIsClean(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var out unwritable
		log, stop, err := newLogger(configs.Log{Format: format}, &out)
		if err != nil {
			t.Fatal(err)
		}
		log.Error("words", zap.String("said", wicked), zap.Any("before", map[string]string{"name": wicked}), zap.Error(fmt.Errorf("%s", wicked)))
		log.Info("Grüße, 世界")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		clean(t, format, strings.ReplaceAll(out.String(), "\t", ""))
		if !strings.Contains(out.String(), "Grüße, 世界") {
			t.Errorf("%s: %q", format, out.String())
		}
		if format == "json" {
			for line := range bytes.Lines([]byte(out.String())) {
				if !json.Valid(line) {
					t.Errorf("not JSON: %q", line)
				}
			}
		}
	}
}
