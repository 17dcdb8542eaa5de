package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"tlsrelay/configs"
	"tlsrelay/relay/relaytest"
)

// callAs is a call of the public API with the key of a tenant.
func (r *rig) callAs(t tenant, method, path, body string) (int, string) {
	r.t.Helper()
	return r.call(method, path, body, "Authorization", "Bearer "+t.key)
}

const testHook = "/v3/user/webhooks/event/test"

// A tenant of a relay that permits any target aims webhooks, test calls and token
// URLs at the relay itself: at the operator's call that lets the guard go, by each
// spelling of its address, and by a redirect. Nothing of it arrives.
func TestTenantAimsAtTheOperatorsListener(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Delivery.ViolationGuardDomains = 2 })
	evil := r.newTenant("evil")
	receiver, _ := r.webhook()
	r.set(`{"require_tls":true}`)
	for i := range 2 {
		d := fmt.Sprintf("failing%d.test", i)
		r.world.Host(t, "mx."+d, relaytest.Script{NoTLS: true})
		r.submit("app@sender.test", "x@"+d)
	}
	r.event(receiver, "x@failing1.test", "deferred")
	if out := r.must("queue", "guard"); !strings.HasPrefix(out, "holding") {
		t.Fatalf("guard: %s", out)
	}

	const release = "/admin/v1/guard/release"
	admin := netip.MustParseAddrPort(r.app.admin.addr())
	redirect := relaytest.StartReceiver(t)
	redirect.Script(relaytest.Response{
		Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"http://" + admin.String() + release}},
	})
	var targets []string
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"} {
		targets = append(targets, fmt.Sprintf("http://%s:%d%s", host, admin.Port(), release))
	}
	targets = append(targets, redirect.URL(), "http://"+r.app.api.addr(), "http://"+r.app.submission.Addrs()[0].String())
	for _, target := range targets {
		for _, body := range []string{
			fmt.Sprintf(`{"url":%q}`, target),
			fmt.Sprintf(`{"url":%q,"oauth_token_url":%q,"oauth_client_id":"x","oauth_client_secret":"x"}`, receiver.URL(), target),
		} {
			if code, answer := r.callAs(evil, "POST", testHook, body); code != 400 {
				t.Errorf("%s: %d %s", body, code, answer)
			}
		}
		// The webhook itself, with an event to tell.
		const settings = "/v3/user/webhooks/event/settings"
		code, answer := r.callAs(evil, "PATCH", settings, fmt.Sprintf(`{"url":%q}`, target))
		if code != 200 {
			t.Fatalf("%s: %d %s", target, code, answer)
		}
		r.submitAs(evil, "x@nowhere.test")
		tried := r.metric("tlsrelay_webhook_posts_total")
		eventually(t, target+" is tried", func() bool { return r.metric("tlsrelay_webhook_posts_total") > tried+1 })
	}
	if out := r.must("queue", "guard"); !strings.HasPrefix(out, "holding") {
		t.Errorf("the tenant let the guard go: %s", out)
	}
	if n := r.metric(`tlsrelay_api_requests_total{route="none"`); n != 0 {
		t.Errorf("the API got %v requests of the relay itself", n)
	}
}
