package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/api/rest"
	"tlsrelay/relay/store"
)

// stillQueue is a queue that does nothing.
type stillQueue struct{}

func (stillQueue) Rescan()                                           {}
func (stillQueue) Drop(context.Context, relay.Claimed, string) error { return nil }
func (stillQueue) GuardHolds() bool                                  { return false }
func (stillQueue) ReleaseGuard()                                     {}

// desk is the operator's calls over a store with a parent, a subuser (shop) and a
// customer (1234).
type desk struct {
	Handlers
	store *store.Store
	logs  *observer.ObservedLogs
}

func newDesk(t testing.TB) desk {
	t.Helper()
	st, err := store.Open(store.Options{Dir: "data", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	for _, a := range []account.Account{
		{Kind: account.KindParent, Username: "root"},
		{Kind: account.KindSubuser, Username: "shop"},
		{Kind: account.KindCustomer, Username: "1234"},
	} {
		if _, err := st.CreateAccount(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	core, logs := observer.New(zapcore.DebugLevel)
	return desk{New(Options{Now: func() time.Time { return testNow }}, Deps{
		Accounts: st, Overrides: st, Webhooks: st, Blocks: st, Messages: st,
		Checker: &fakeChecker{}, Tester: &fakeTester{}, Queue: stillQueue{},
		Lanes:     func(int) (any, int) { return []string{}, 7 },
		Endpoints: func() any { return []string{} },
		Log:       zap.New(core),
	}, nil), st, logs}
}

func (d desk) ask(method, target, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	d.Operator.ServeHTTP(w, httptest.NewRequest(method, target, strings.NewReader(body)))
	return w
}

// A parameter that the call does not take is refused with its name, wherever it
// stands, and nothing is done.
func TestUnknownParametersOfTheOperator(t *testing.T) {
	d := newDesk(t)
	for _, c := range []struct{ method, target, body, want string }{
		{"GET", "/admin/v1/queue?lmit=3", "", "unknown parameter: lmit"},
		{"GET", "/admin/v1/accounts?limit=3", "", "unknown parameter: limit"},
		{"GET", "/admin/v1/queue?limit=3&limit=4", "", "limit is there more than once"},
		{"GET", "/admin/v1/queue/messages?held=yes", "", "held must be a boolean"},
		{"GET", "/admin/v1/queue/messages?offset=-1", "", "offset must be an integer"},
		{"POST", "/admin/v1/accounts", `{"username":"x","disabled":true,"Email":"a@b"}`, "unknown parameter: Email; unknown parameter: disabled"},
		{"PATCH", "/admin/v1/accounts/shop", `{"require_tls":true,"requiretls_relaxd":true}`, "unknown parameter: requiretls_relaxd"},
		{"PATCH", "/admin/v1/accounts/shop?disabled=true", `{}`, "unknown parameter: disabled"},
		{"POST", "/admin/v1/queue/drop?destination=a.example", `{"all":true}`, "unknown parameter: destination"},
		{"GET", "/admin/v1/queue?limit=3;after=x", "", "the query is malformed"},
		{"POST", "/admin/v1/queue/drop", `{"destinaton":"a.example","all":true}`, "unknown parameter: destinaton"},
		{"POST", "/admin/v1/guard/release", `{"force":true}`, "unknown parameter: force"},
		{"DELETE", "/admin/v1/accounts/shop", `{"keep":true}`, "unknown parameter: keep"},
	} {
		w := d.ask(c.method, c.target, c.body)
		var answer struct{ Error string }
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 400 || !strings.Contains(answer.Error, c.want) {
			t.Errorf("%s %s: %d %s, want %q", c.method, c.target, w.Code, w.Body, c.want)
		}
	}
	if a, err := d.store.AccountNamed(t.Context(), account.KindSubuser, "shop"); err != nil || a.Settings.RequireTLS {
		t.Errorf("%+v, %v", a, err)
	}
	if n := d.logs.FilterMessage("audit").Len(); n != 0 {
		t.Errorf("%d changes", n)
	}
}

// Neither surface has the other's calls, and only the public one speaks to pages of
// any origin.
func TestSurfacesAreApart(t *testing.T) {
	d := newDesk(t)
	for _, to := range newServer(Options{}, Deps{}).routes() {
		path := strings.NewReplacer("{", "", "}", "").Replace(to.Path)
		for _, operators := range []bool{true, false} {
			h := d.Public
			if operators {
				h = d.Operator
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest("OPTIONS", path, nil))
			there := (to.Scope == rest.Operator) == operators
			if got := w.Code == http.StatusNoContent && strings.Contains(w.Header().Get("Allow"), to.Method); got != there {
				t.Errorf("%s %s, to the operator %t: %d", to.Method, to.Path, operators, w.Code)
			}
			for name := range w.Header() {
				if operators && strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s: the operator's listener says %s", to.Path, name)
				}
			}
		}
	}
}

// What an operator does to accounts and keys is told in the form of the API's changes.
func TestOperatorIsAudited(t *testing.T) {
	d := newDesk(t)
	for _, c := range []struct{ method, target, body string }{
		{"POST", "/admin/v1/accounts", `{"username":"new","email":"a@b.example"}`},
		{"POST", "/admin/v1/accounts", `{"customer":"c:7"}`},
		{"PATCH", "/admin/v1/accounts/account-id%20c:7", `{"disabled":true,"version":"1.3","require_tls":true,"max_recipients_per_hour":5}`},
		{"POST", "/admin/v1/accounts/new/keys", `{"name":"k","scopes":["mail.send"]}`},
		{"POST", "/admin/v1/accounts/new/blocks/remove", `{"emails":["a@b.example"]}`},
		{"DELETE", "/admin/v1/accounts/new", ``},
	} {
		if w := d.ask(c.method, c.target, c.body); w.Code >= 300 {
			t.Errorf("%s %s: %d %s", c.method, c.target, w.Code, w.Body)
		}
	}
	var changes []string
	for _, l := range d.logs.FilterMessage("audit").All() {
		m := l.ContextMap()
		changes = append(changes, m["change"].(string)+" by "+m["by"].(string))
	}
	want := []string{
		"subuser created by operator", "customer created by operator", "customer changed by operator",
		"api key created by operator", "blocks removed by operator", "subuser deleted by operator",
	}
	if !slices.Equal(changes, want) {
		t.Errorf("audited\n%q\nwant\n%q", changes, want)
	}
	a, err := d.store.AccountNamed(t.Context(), account.KindCustomer, "c:7")
	if err != nil || !a.Disabled || !a.Settings.RequireTLS || a.Settings.Floor().String() != "1.3" || a.MaxRecipientsPerHour != 5 {
		t.Errorf("%+v, %v", a, err)
	}
}

// FuzzOperatorCall sends any query and body to every call of the operator, with a
// store behind it: nothing fails as the relay's own fault, and what is refused is told
// in one text.
func FuzzOperatorCall(f *testing.F) {
	var targets []string
	for _, r := range ofSurface(newServer(Options{}, Deps{}).routes(), true) {
		targets = append(targets, r.Method+" "+strings.NewReplacer("{id}", "x", "{account}", "shop").Replace(r.Path))
	}
	for i := range targets {
		f.Add(uint8(i), "", []byte(`{}`))
		f.Add(uint8(i), "limit=3&offset=1&held=true&message=x", []byte(`{"all":true,"reason":"x"}`))
		f.Add(uint8(i), "", []byte(`{"username":"a","version":"1.2","max_recipients_per_hour":7,"on_violation":"defer","requiretls":"relaxed"}`))
		f.Add(uint8(i), "email=a%25", []byte(`{"domain":"[192.0.2.1]","account":"shop","version":1.3}`))
		f.Add(uint8(i), "", []byte(`{"name":"k","scopes":["mail.send"]}`))
	}
	f.Add(uint8(0), "", []byte(`{"version":""}`))
	d := newDesk(f)
	f.Fuzz(func(t *testing.T, i uint8, query string, body []byte) {
		method, path, _ := strings.Cut(targets[int(i)%len(targets)], " ")
		r := httptest.NewRequest(method, path, strings.NewReader(string(body)))
		r.URL = &url.URL{Path: path, RawQuery: query}
		w := httptest.NewRecorder()
		d.Operator.ServeHTTP(w, r)
		var answer any
		if err := json.Unmarshal(w.Body.Bytes(), &answer); w.Code >= 500 || w.Code < 200 || err != nil && w.Code != http.StatusNoContent {
			t.Fatalf("%s %s?%s with %q: %d %s", method, path, query, body, w.Code, w.Body)
		}
		if told, _ := answer.(map[string]any); w.Code >= 300 && (told["error"] == nil || told["error"] == "") {
			t.Fatalf("%s %s?%s with %q: %d %s", method, path, query, body, w.Code, w.Body)
		}
		// What goes or came to be is made good, so that the store stays as it is.
		all, err := d.store.Accounts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range all {
			if a.Username != "root" && a.Username != "shop" && a.Username != "1234" {
				_ = d.store.DeleteAccount(t.Context(), a.ID)
			}
			keys, _ := d.store.Keys(t.Context(), a.ID)
			for _, k := range keys {
				_ = d.store.DeleteKey(t.Context(), k.ID)
			}
		}
		_, _ = d.store.CreateAccount(t.Context(), account.Account{Kind: account.KindSubuser, Username: "shop"})
	})
}
