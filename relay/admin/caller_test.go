package admin

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// browser gives the headers by which a browser says who asks.
func browser(site, mode, dest string) map[string]string {
	return map[string]string{"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
}

func with(headers map[string]string, name, value string) map[string]string {
	headers[name] = value
	return headers
}

// Who may call, one request a line.
func TestOnlyOperator(t *testing.T) {
	const token = "s3cret"
	for _, c := range []struct {
		name          string
		listen, token string
		method, path  string
		host          string
		header        map[string]string
		want          int
	}{
		{"loopback, no token", "127.0.0.1:8026", "", "GET", "/admin/v1/queue", "127.0.0.1:8026", nil, 200},
		{"localhost by name", "127.0.0.1:8026", "", "GET", "/metrics", "localhost:9999", nil, 200},
		{"rebound name", "127.0.0.1:8026", "", "GET", "/admin/v1/queue", "evil.example:8026", nil, 421},
		{"rebound name, with a token set", "127.0.0.1:8026", token, "GET", "/admin/v1/queue", "evil.example:8026", nil, 421},
		{"rebound name, health", "127.0.0.1:8026", "", "GET", "/healthz", "evil.example", nil, 200},
		{"rebound name, readiness", "127.0.0.1:8026", token, "GET", "/readyz", "evil.example", nil, 200},
		{"further name", "127.0.0.1:8026", "", "GET", "/metrics", "relay.svc:8026", nil, 200},
		{"further name, dotted", "127.0.0.1:8026", "", "GET", "/metrics", "Relay.SVC.", nil, 200},
		{"further address", "127.0.0.1:8026", "", "GET", "/metrics", "[2001:db8::1]:8026", nil, 200},
		{"further name, no token given", "127.0.0.1:8026", token, "GET", "/metrics", "relay.svc", nil, 401},
		{"no name", "127.0.0.1:8026", "", "GET", "/metrics", "", nil, 421},
		{"any name with the token", "127.0.0.1:8026", token, "GET", "/metrics", "evil.example", map[string]string{"Authorization": "Bearer s3cret"}, 200},
		{"any name with another token", "127.0.0.1:8026", token, "GET", "/metrics", "evil.example", map[string]string{"Authorization": "Bearer s3cres"}, 421},
		{"any name with a token that nobody set", "127.0.0.1:8026", "", "GET", "/metrics", "evil.example", map[string]string{"Authorization": "Bearer "}, 421},
		{"a change by any name with the token", "127.0.0.1:8026", token, "POST", "/admin/v1/queue/drop", "evil.example",
			map[string]string{"Authorization": "Bearer s3cret", "Content-Type": "application/json", "Origin": "http://other.example"}, 403},
		{"own address", "192.0.2.1:8026", token, "GET", "/metrics", "192.0.2.1:8026", map[string]string{"Authorization": "Bearer s3cret"}, 200},
		{"all addresses", "0.0.0.0:8026", token, "GET", "/metrics", "192.0.2.7:8026", map[string]string{"Authorization": "Bearer s3cret"}, 200},
		{"all addresses, name", "0.0.0.0:8026", token, "GET", "/metrics", "evil.example", nil, 421},
		{"no token given", "127.0.0.1:8026", token, "GET", "/metrics", "127.0.0.1", nil, 401},
		{"wrong token", "127.0.0.1:8026", token, "GET", "/metrics", "127.0.0.1", map[string]string{"Authorization": "Bearer s3cres"}, 401},
		{"health needs none", "127.0.0.1:8026", token, "GET", "/readyz", "127.0.0.1", nil, 200},
		// What Chromium and Firefox send.
		{"image on another site", "127.0.0.1:8026", "", "GET", "/debug/pprof/trace", "127.0.0.1:8026", browser("cross-site", "no-cors", "image"), 403},
		{"image on another port of localhost", "localhost:8026", "", "GET", "/debug/pprof/profile", "localhost:8026", browser("same-site", "no-cors", "image"), 403},
		{"script on another port of localhost", "localhost:8026", "", "GET", "/admin/v1/queue", "localhost:8026", browser("same-site", "cors", "empty"), 403},
		{"script of another site, with the token", "localhost:8026", token, "GET", "/metrics", "localhost:8026",
			with(browser("cross-site", "cors", "empty"), "Authorization", "Bearer s3cret"), 403},
		{"health for another site", "localhost:8026", "", "GET", "/healthz", "localhost:8026", browser("cross-site", "no-cors", "script"), 403},
		{"window that another site opens on a profile", "localhost:8026", "", "GET", "/debug/pprof/profile", "localhost:8026", browser("cross-site", "navigate", "document"), 403},
		{"window that another port opens on a profile", "localhost:8026", "", "GET", "/debug/pprof/profile", "localhost:8026", browser("same-site", "navigate", "document"), 403},
		{"window that another site opens on a list", "localhost:8026", "", "GET", "/admin/v1/queue", "localhost:8026", browser("cross-site", "navigate", "document"), 403},
		{"page in a frame of another site", "localhost:8026", "", "GET", "/", "localhost:8026", browser("cross-site", "navigate", "iframe"), 403},
		{"page from a link", "127.0.0.1:8026", "", "GET", "/", "127.0.0.1:8026", browser("cross-site", "navigate", "document"), 200},
		{"form of another site to the page", "127.0.0.1:8026", "", "POST", "/", "127.0.0.1:8026", browser("cross-site", "navigate", "document"), 403},
		{"typed by hand", "localhost:8026", "", "GET", "/debug/pprof/profile", "localhost:8026", browser("none", "navigate", "document"), 200},
		{"link of our own page", "localhost:8026", "", "GET", "/debug/pprof/", "localhost:8026", browser("same-origin", "navigate", "document"), 200},
		{"a site that no browser knows", "localhost:8026", "", "GET", "/metrics", "localhost:8026", browser("", "cors", "empty"), 403},
		{"change from another port of localhost", "localhost:8026", "", "POST", "/admin/v1/queue/drop", "localhost:8026",
			with(browser("same-site", "cors", "empty"), "Content-Type", "application/json"), 403},
		{"change as JSON", "127.0.0.1:8026", "", "POST", "/admin/v1/queue/retry", "127.0.0.1", map[string]string{"Content-Type": "application/json; charset=utf-8"}, 200},
		{"change as a form", "127.0.0.1:8026", "", "POST", "/admin/v1/queue/retry", "127.0.0.1", map[string]string{"Content-Type": "text/plain"}, 415},
		{"change without a type", "127.0.0.1:8026", "", "DELETE", "/admin/v1/keys/x", "127.0.0.1", nil, 415},
		{"change from another origin", "127.0.0.1:8026", "", "POST", "/admin/v1/queue/drop", "127.0.0.1:8026",
			map[string]string{"Content-Type": "application/json", "Origin": "http://evil.example"}, 403},
		{"change from our own page", "127.0.0.1:8026", "", "POST", "/admin/v1/queue/drop", "127.0.0.1:8026",
			map[string]string{"Content-Type": "application/json", "Origin": "http://127.0.0.1:8026"}, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := onlyOperator(Options{Listen: c.listen, Token: c.token, Hosts: []string{"relay.svc", "2001:DB8::1"}}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			r := httptest.NewRequest(c.method, c.path, strings.NewReader("{}"))
			r.Host = c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, c.want)
			}
		})
	}
}
