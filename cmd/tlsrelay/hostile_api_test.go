package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/events/webhook"
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

// callers make the same call over and over, and count the answers.
type callers struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	client http.Client

	mu    sync.Mutex
	codes map[int]int
}

// crowd starts n callers for each key, until stop.
func (r *rig) crowd(keys []string, n int, path, body string, header ...string) *callers {
	ctx, stop := context.WithCancel(r.t.Context())
	c := &callers{stop: stop, client: http.Client{Transport: &http.Transport{}}, codes: map[int]int{}}
	for _, key := range keys {
		for range n {
			c.done.Go(func() {
				for ctx.Err() == nil {
					req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+r.app.api.addr()+path, strings.NewReader(body))
					req.Header.Set("Authorization", "Bearer "+key)
					for i := 0; i+1 < len(header); i += 2 {
						req.Header.Set(header[i], header[i+1])
					}
					res, err := c.client.Do(req)
					if err != nil {
						continue // stopped
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
					c.mu.Lock()
					c.codes[res.StatusCode]++
					c.mu.Unlock()
					select { // as a client that reads no Retry-After, but does not spin
					case <-ctx.Done():
					case <-time.After(50 * time.Millisecond):
					}
				}
			})
		}
	}
	return c
}

func (c *callers) end() map[int]int {
	c.stop()
	c.done.Wait()
	c.client.CloseIdleConnections()
	return c.codes
}

// answers makes a call of a good tenant n times, and gives the answers and how long
// the median and the slowest took.
func (r *rig) answers(t tenant, n int, path, body string) (codes map[int]int, median, slowest time.Duration) {
	r.t.Helper()
	codes = map[int]int{}
	var took []time.Duration
	for range n {
		begun := time.Now()
		code, _ := r.callAs(t, "POST", path, body)
		codes[code]++
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return codes, took[n/2], took[n-1]
}

// Checks of a host that says nothing, and test calls to a consumer that never
// answers, of one account with twenty callers, of a parent that acts for its
// subusers, and of a family of twenty subusers: another account's are answered all
// the same, and about as fast.
func TestCallsThatWaitForOthersHosts(t *testing.T) {
	const family, good = 20, 30
	r := newRig(t)
	shop := r.newTenant("shop")
	r.world.Host(t, "mx.good.test")
	r.world.Host(t, "mx.tarpit.test", relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Silence}})
	silent := relaytest.StartReceiver(t, relaytest.Response{Do: relaytest.Silence})
	var keys []string
	for i := range family {
		keys = append(keys, r.newSubuser(fmt.Sprintf("evil%d", i)).Secret)
	}
	for _, call := range []struct {
		name, path, evil, good string
		want, most, all        int
	}{
		{"check", "/relay/v1/check", `{"domain":"tarpit.test"}`, `{"domain":"good.test"}`, 200, 4, 64},
		{"webhook_test", testHook, fmt.Sprintf(`{"url":%q}`, silent.URL()), fmt.Sprintf(`{"url":%q}`, shop.receiver.URL()), 204, 2, 32},
	} {
		_, quiet, _ := r.answers(shop, good, call.path, call.good)
		for _, attack := range []struct {
			name   string
			keys   []string
			each   int
			header []string
			most   int // under way
		}{
			{"one account", keys[:1], 20, nil, call.most},
			{"a parent for its subusers", []string{r.key}, 20, []string{"On-Behalf-Of", "evil1"}, call.most},
			{"a family", keys, 5, nil, min(family*call.most, call.all)},
		} {
			underWay := fmt.Sprintf("tlsrelay_api_calls_under_way{call=%q", call.name)
			c := r.crowd(attack.keys, attack.each, call.path, call.evil, attack.header...)
			eventually(t, attack.name+" has what it gets", func() bool { return int(r.metric(underWay)) == attack.most })
			codes, median, slowest := r.answers(shop, good, call.path, call.good)
			n := int(r.metric(underWay))
			theirs := c.end()
			t.Logf("%s, %s: the good tenant got %v, median %v (quiet %v), slowest %v; the others %v", call.name, attack.name, codes, median, quiet, slowest, theirs)
			if codes[call.want] != good || slowest > 5*time.Second {
				t.Errorf("%s, %s: the good tenant got %v, the slowest after %v", call.name, attack.name, codes, slowest)
			}
			if n > call.all || theirs[429] == 0 || theirs[503] > 0 {
				t.Errorf("%s, %s: %d are under way; answers %v", call.name, attack.name, n, theirs)
			}
			eventually(t, "all have ended", func() bool { return r.metric(underWay) == 0 })
		}
	}
	for name, least := range map[string]float64{
		`tlsrelay_api_bound_refusals_total{bound="checks"`: 1, `tlsrelay_api_bound_refusals_total{bound="webhook_tests"`: 1,
		`tlsrelay_api_calls_gave_way_total{call="check"`: 1, `tlsrelay_api_calls_gave_way_total{call="webhook_test"`: 1,
	} {
		if n := r.metric(name); n < least {
			t.Errorf("%s is %v", name, n)
		}
	}
}

// All five webhooks of a tenant want a token from a host that says nothing: the
// events of another tenant come as fast as ever.
func TestSlowTokenEndpointsHoldUpNobody(t *testing.T) {
	const messages = 10
	r := newRig(t)
	host := r.world.Host(t, "mx.good.test")
	evil, shop := r.newTenant("evil"), r.newTenant("shop")
	silent := relaytest.StartReceiver(t, relaytest.Response{Do: relaytest.Silence})
	pace := func(round string) (slowest time.Duration) {
		t.Helper()
		for i := range messages {
			to := fmt.Sprintf("%s%d@good.test", round, i)
			r.submitAs(shop, to)
			begun := time.Now()
			r.event(shop.receiver, to, "delivered")
			slowest = max(slowest, time.Since(begun))
		}
		return slowest
	}
	quiet := pace("quiet")
	const settings = "/v3/user/webhooks/event/settings"
	for i := range webhook.MaxPerAccount {
		path, method := settings, "POST"
		if i == 0 {
			method = "PATCH" // it has one
		}
		if code, body := r.callAs(evil, method, path, fmt.Sprintf(
			`{"url":"%s/%d","enabled":true,"processed":true,"delivered":true,"oauth_token_url":"%s/token","oauth_client_id":"x","oauth_client_secret":"x"}`,
			evil.receiver.URL(), i, silent.URL())); code/100 != 2 {
			t.Fatalf("%d %s", code, body)
		}
	}
	for range messages {
		r.submitAs(evil, "a@good.test")
	}
	host.Await(t, 2*messages)
	eventually(t, "all five wait for a token", func() bool { return len(silent.Requests()) == webhook.MaxPerAccount })
	busy := pace("busy")
	t.Logf("the slowest event: %v before, %v then", quiet, busy)
	if busy > 5*time.Second {
		t.Errorf("an event of another tenant took %v, and %v before", busy, quiet)
	}
	if n := r.metric("tlsrelay_webhook_tokens"); n != 0 {
		t.Errorf("%v tokens are kept", n)
	}
}

// A page on another port of localhost is same-site with the operator's listener. It
// gets nothing from it, and starts no profile; a browser that the operator uses does.
func TestPagesOfOthersAskTheOperatorsListener(t *testing.T) {
	r := newRig(t)
	base := "http://" + strings.Replace(r.app.admin.addr(), "127.0.0.1", "localhost", 1)
	for _, c := range []struct {
		site, mode, dest string
		page, rest       int
	}{
		{"same-site", "no-cors", "image", 403, 403},
		{"same-site", "cors", "empty", 403, 403},
		{"cross-site", "no-cors", "script", 403, 403},
		{"cross-site", "navigate", "iframe", 403, 403},
		{"cross-site", "navigate", "document", 200, 403}, // a link, in a window of its own
		{"same-site", "navigate", "document", 200, 403},
		{"same-origin", "navigate", "document", 200, 200},
		{"none", "navigate", "document", 200, 200},
		{"", "", "", 200, 200}, // no browser
	} {
		for _, path := range []string{"/", "/debug/pprof/cmdline", "/metrics", "/admin/v1/queue", "/readyz"} {
			req, err := http.NewRequest("GET", base+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			for name, value := range map[string]string{"Site": c.site, "Mode": c.mode, "Dest": c.dest} {
				if value != "" {
					req.Header.Set("Sec-Fetch-"+name, value)
				}
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			want := c.rest
			if path == "/" {
				want = c.page
			}
			if res.StatusCode != want {
				t.Errorf("%s for %s, %s, %s: %d, want %d", path, c.site, c.mode, c.dest, res.StatusCode, want)
			}
		}
	}
}
