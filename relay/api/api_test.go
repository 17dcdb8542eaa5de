package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/sendgrid/sendgrid-go"
	"github.com/sendgrid/sendgrid-go/helpers/eventwebhook"
	"go.uber.org/zap/zapcore"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay/store"
	"tlsrelay/relay/store/storetest"
)

// get makes one request with a key by name.
func (w *world) get(t *testing.T, method, path, key, body string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, w.server.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.vars[key])
	res, err := plainClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b strings.Builder
	if err := res.Write(&b); err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(b.String(), "\r\n\r\n")
	return res, text
}

// The Go library's own way, as its documents have it.
func TestSendgridGo(t *testing.T) {
	w := newWorld(t, Options{})
	for _, who := range []string{"account-id 1234", "sub1"} {
		req := sendgrid.GetRequestSubuser(w.vars["full"], "/v3/user/settings/enforced_tls", w.server.URL, who)
		req.Method = "PATCH"
		req.Body = []byte(`{"require_tls":true,"version":1.2}`)
		res, err := sendgrid.API(req)
		if err != nil {
			t.Fatal(err)
		}
		if want := `{"require_tls":true,"require_valid_cert":false,"version":1.2}`; res.StatusCode != 200 || res.Body != want {
			t.Errorf("%s: %d %s, want %s", who, res.StatusCode, res.Body, want)
		}
	}
	req := sendgrid.GetRequest(w.vars["full"], "/v3/user/settings/enforced_tls", w.server.URL)
	req.Method = "GET"
	res, err := sendgrid.API(req)
	if want := `{"require_tls":false,"require_valid_cert":false,"version":1.1}`; err != nil || res.Body != want {
		t.Errorf("the parent has %v, %v, want %s", res, err, want)
	}
}

// The library's retry helper sleeps until X-RateLimit-Reset.
func TestRateLimit(t *testing.T) {
	now := testNow
	w := newWorld(t, Options{RequestsPerMinute: 3, Now: func() time.Time { return now }})
	for left := 2; left >= 0; left-- {
		res, body := w.get(t, "GET", "/v3/scopes", "none", "")
		if res.StatusCode != 200 || res.Header.Get("X-RateLimit-Remaining") != strconv.Itoa(left) {
			t.Errorf("%d left: %d %v %s", left, res.StatusCode, res.Header, body)
		}
	}
	res, body := w.get(t, "GET", "/v3/scopes", "none", "")
	if res.StatusCode != 429 || body != `{"errors":[{"field":null,"message":"too many requests"}]}` {
		t.Errorf("the fourth: %d %s", res.StatusCode, body)
	}
	reset := strconv.FormatInt(testNow.Add(30*time.Second).Unix(), 10)
	for name, want := range map[string]string{
		"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset, "Retry-After": "30",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if res, _ := w.get(t, "GET", "/v3/scopes", "read", ""); res.StatusCode != 200 {
		t.Errorf("another key has its own allowance: %d", res.StatusCode)
	}
	if res, _ := w.get(t, "GET", "/relay/v1/settings", "none", ""); res.StatusCode != 429 ||
		res.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the limit of /relay/v1: %d %v", res.StatusCode, res.Header)
	}
	now = now.Add(30 * time.Second)
	if res, _ := w.get(t, "GET", "/v3/scopes", "none", ""); res.StatusCode != 200 {
		t.Errorf("the allowance does not come back: %d", res.StatusCode)
	}
}

func TestNoRateLimit(t *testing.T) {
	w := newWorld(t, Options{})
	res, _ := w.get(t, "GET", "/v3/scopes", "none", "")
	if h := res.Header.Get("X-RateLimit-Limit"); h != "" {
		t.Errorf("without a limit, X-RateLimit-Limit is %q", h)
	}
}

// broken is a store whose list of webhooks fails or panics.
type broken struct {
	*store.Store
	fail func() error
}

func (b broken) Endpoints(context.Context, string) ([]webhook.Endpoint, error) { return nil, b.fail() }

func TestOwnTrouble(t *testing.T) {
	const path = "/v3/user/webhooks/event/settings"
	const want = `{"errors":[{"message":"internal server error"}]}`
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("inner text") },
		"panic": func() error { panic("inner text") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorldWith(t, Options{}, func(d *Deps) { d.Webhooks = broken{d.Webhooks.(*store.Store), fail} })
			res, body := w.get(t, "GET", path, "full", "")
			if res.StatusCode != 500 || body != want || res.Header.Get("X-Request-Id") == "" {
				t.Errorf("%d %s", res.StatusCode, body)
			}
			if w.logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
				t.Errorf("logged %v", w.logs.All())
			}
			if res, _ := w.get(t, "GET", path, "read", ""); res.StatusCode != 403 {
				t.Errorf("afterwards: %d", res.StatusCode)
			}
		})
	}
}

// A store that is closed answers nothing, and no request is let through.
func TestStoreAway(t *testing.T) {
	w := newWorld(t, Options{})
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v3/suppression/blocks", "/relay/v1/messages/" + strings.Repeat("A", 22)} {
		if res, body := w.get(t, "GET", path, "full", ""); res.StatusCode != 500 {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
}

// revoking revokes a key, as an operator does, right after it was read for the
// nth time.
type revoking struct {
	account.Store
	id string
	n  int
}

func (r *revoking) Key(ctx context.Context, id string) (account.Key, error) {
	k, err := r.Store.Key(ctx, id)
	if id == r.id {
		if r.n--; r.n == 0 {
			err = errors.Join(err, r.Store.DeleteKey(ctx, id))
		}
	}
	return k, err
}

// Nobody keeps a key alive by changing it while the operator revokes it.
func TestRevokedKeyStaysRevoked(t *testing.T) {
	for n := range 4 {
		accounts := &revoking{n: n}
		w := newWorldWith(t, Options{}, func(d *Deps) { accounts.Store, d.Accounts = d.Accounts, accounts })
		accounts.id = w.vars["full_id"]
		res, body := w.get(t, "PATCH", "/v3/api_keys/"+accounts.id, "full", `{"name":"mine"}`)
		_, err := w.store.Key(t.Context(), accounts.id)
		revoked := n > 0 && accounts.n <= 0
		if errors.Is(err, account.ErrNotFound) != revoked {
			t.Errorf("revoked after read %d: %v; PATCH %d %s", n, err, res.StatusCode, body)
		}
		if revoked && res.StatusCode != 404 || !revoked && res.StatusCode != 200 {
			t.Errorf("revoked after read %d: PATCH %d %s", n, res.StatusCode, body)
		}
	}
}

// ending is a store whose account ends right before a webhook of it is stored.
type ending struct {
	*store.Store
	id account.ID
}

func (e ending) ChangeEndpoint(ctx context.Context, who string, change func([]webhook.Endpoint) (webhook.Endpoint, error)) (webhook.Endpoint, error) {
	if err := e.DeleteAccount(ctx, e.id); err != nil {
		return webhook.Endpoint{}, err
	}
	return e.Store.ChangeEndpoint(ctx, who, change)
}

// A webhook that is made while its account ends is not there afterwards.
func TestWebhookOfAnEndedAccount(t *testing.T) {
	w := newWorldWith(t, Options{}, func(d *Deps) { d.Webhooks = ending{d.Webhooks.(*store.Store), "2"} })
	res, body := w.get(t, "POST", "/v3/user/webhooks/event/settings", "sub1", `{"url":"https://hooks.example.com/a"}`)
	all, err := w.store.Endpoints(t.Context(), "2")
	if res.StatusCode != 404 || len(all) != 0 || err != nil {
		t.Errorf("%d %s; %d webhooks of an account that ended, %v", res.StatusCode, body, len(all), err)
	}
}

// Two relays over one store let nobody have more webhooks than one does.
func TestWebhookLimitOfTwo(t *testing.T) {
	w := newWorld(t, Options{})
	second := newWorldWith(t, Options{}, func(d *Deps) { d.Accounts, d.Overrides, d.Webhooks = w.store, w.store, w.store })
	second.vars = w.vars
	var asking sync.WaitGroup
	for i := range 40 {
		asking.Go(func() {
			body := fmt.Sprintf(`{"url":"https://hooks.example.com/%d"}`, i/4)
			[]*world{w, second}[i%2].get(t, "POST", "/v3/user/webhooks/event/settings", "sub1", body)
		})
	}
	asking.Wait()
	all, err := w.store.Endpoints(t.Context(), "2")
	urls := map[string]bool{}
	for _, e := range all {
		urls[e.URL] = true
	}
	if len(all) != webhook.MaxPerAccount || len(urls) != len(all) || err != nil {
		t.Errorf("%d webhooks with %d URLs, %v", len(all), len(urls), err)
	}
}

func TestKeyLimit(t *testing.T) {
	w := newWorld(t, Options{})
	for i := range maxKeys - 1 { // sub1 has one
		k := account.Key{ID: fmt.Sprintf("%022d", i), Owner: "2", Name: "x"}
		if err := w.store.PutKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	res, body := w.get(t, "POST", "/v3/api_keys", "sub1", `{"name":"one more"}`)
	if res.StatusCode != 403 || !strings.Contains(body, "100 API Keys") {
		t.Errorf("the 101st: %d %s", res.StatusCode, body)
	}
	if res, body := w.get(t, "POST", "/v3/api_keys", "full", `{"name":"other account"}`); res.StatusCode != 201 {
		t.Errorf("another account: %d %s", res.StatusCode, body)
	}
}

func TestInsecureWebhooks(t *testing.T) {
	w := newWorld(t, Options{AllowInsecureWebhooks: true})
	for _, url := range []string{"http://127.0.0.1:8080/x", "http://localhost/", "https://[::1]/"} {
		res, body := w.get(t, "POST", "/v3/user/webhooks/event/settings", "full", `{"url":"`+url+`"}`)
		if res.StatusCode != 201 {
			t.Errorf("%s: %d %s", url, res.StatusCode, body)
		}
	}
	if res, _ := w.get(t, "POST", "/v3/user/webhooks/event/settings", "full", `{"url":"ftp://127.0.0.1/"}`); res.StatusCode != 400 {
		t.Errorf("ftp: %d", res.StatusCode)
	}
}

// What the tester is given: the webhook's own key and secret, and the secret
// for no other token URL than its own.
func TestWebhookTest(t *testing.T) {
	w := newWorld(t, Options{})
	key, err := webhook.NewSigningKey()
	if err != nil {
		t.Fatal(err)
	}
	stored := webhook.Endpoint{
		ID: "w1", Account: "1", URL: "https://hooks.example.com/a", SigningKey: key, Created: testNow,
		OAuthClientID: "me", OAuthClientSecret: "hush", OAuthTokenURL: "https://oauth.example.com/",
	}
	if err := storetest.PutEndpoint(t.Context(), w.store, stored); err != nil {
		t.Fatal(err)
	}
	const path = "/v3/user/webhooks/event/test"
	res, body := w.get(t, "POST", path, "full",
		`{"id":"w1","url":"https://hooks.example.com/b","oauth_client_id":"me","oauth_token_url":"https://oauth.example.com/"}`)
	got := w.test.last
	if res.StatusCode != 204 || got.URL != "https://hooks.example.com/b" || string(got.SigningKey) != string(key) || got.OAuthClientSecret != "hush" {
		t.Errorf("%d %s: tested %+v", res.StatusCode, body, got)
	}

	w.test.last = webhook.Endpoint{}
	res, body = w.get(t, "POST", path, "full",
		`{"id":"w1","url":"https://hooks.example.com/b","oauth_client_id":"me","oauth_token_url":"https://evil.example.com/"}`)
	if res.StatusCode != 400 || w.test.last.URL != "" {
		t.Errorf("another token URL: %d %s, tested %+v", res.StatusCode, body, w.test.last)
	}

	w.test.err = errors.New("answered 418 at 192.0.2.1")
	res, body = w.get(t, "POST", path, "full", `{"url":"https://hooks.example.com/b"}`)
	want := `{"errors":[{"message":"the test events were not accepted at that url","field":"url","help":null}]}`
	if res.StatusCode != 400 || body != want {
		t.Errorf("a failed test: %d %s", res.StatusCode, body)
	}
}

// The key that the API shows verifies what the key it stored signs, by the
// Go library's own check.
func TestShownKeyVerifies(t *testing.T) {
	w := newWorld(t, Options{})
	const path = "/v3/user/webhooks/event/settings"
	w.get(t, "POST", path, "full", `{"url":"https://hooks.example.com/a"}`)
	_, body := w.get(t, "PATCH", path+"/signed", "full", `{"enabled":true}`)
	var shown struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal([]byte(body), &shown); err != nil || len(shown.PublicKey) != 124 {
		t.Fatalf("%v: %s", err, body)
	}
	all, err := w.store.Endpoints(t.Context(), "1")
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	sig, err := webhook.Sign(all[0].SigningKey, "1600112502", []byte("[]\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := eventwebhook.ConvertPublicKeyBase64ToECDSA(shown.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := eventwebhook.VerifySignature(pub, []byte("[]\r\n"), sig, "1600112502"); !ok || err != nil {
		t.Error(ok, err)
	}
}

// Every change of policy or key leaves a line that says who and what, and no
// line ever holds a secret.
func TestAudit(t *testing.T) {
	w := newWorld(t, Options{})
	w.get(t, "PATCH", "/v3/user/settings/enforced_tls", "full", `{"require_tls":true}`)
	w.get(t, "PATCH", "/v3/user/settings/enforced_tls", "full", `{"require_tls":true}`) // no change
	w.get(t, "GET", "/v3/user/settings/enforced_tls", "full", "")
	_, made := w.get(t, "POST", "/v3/api_keys", "full", `{"name":"x"}`)
	w.get(t, "PATCH", "/relay/v1/settings", "sub1", `{"on_violation":"defer"}`)
	w.get(t, "PUT", "/relay/v1/domains/example.com", "full", `{"require_tls":true}`)
	w.get(t, "POST", "/v3/subusers", "full", `{"username":"n","password":"pass-word"}`)
	w.get(t, "POST", "/v3/user/webhooks/event/settings", "full",
		`{"url":"https://u:pass-word@hooks.example.com/?t=pass-word","oauth_client_id":"c","oauth_client_secret":"pass-word","oauth_token_url":"https://oauth.example.com"}`)
	w.get(t, "PATCH", "/v3/user/webhooks/event/settings/signed", "full", `{"enabled":true}`)
	w.get(t, "DELETE", "/v3/api_keys/"+w.vars["read_id"], "full", "")

	lines := w.logs.FilterMessage("audit").All()
	var changes []string
	for _, l := range lines {
		m := l.ContextMap()
		changes = append(changes, fmt.Sprint(m["change"], " by ", m["key_owner"], " for ", m["account"]))
		if m["key"] != w.vars["full_id"] && m["key"] != w.vars["sub1_id"] || m["request_id"] == "" {
			t.Errorf("who? %v", m)
		}
	}
	want := []string{
		"tls policy changed by 1 for 1", "api key created by 1 for 1", "relay settings changed by 2 for 2",
		"domain rule changed by 1 for 1", "subuser created by 1 for 1", "webhook created by 1 for 1",
		"webhook signing changed by 1 for 1", "api key deleted by 1 for 1",
	}
	if fmt.Sprint(changes) != fmt.Sprint(want) {
		t.Errorf("audited\n%q\nwant\n%q", changes, want)
	}
	if first := lines[0].ContextMap(); fmt.Sprint(first["before"], first["after"]) != "{false false 1.1} {true false 1.1}" {
		t.Errorf("what? %v", first)
	}
	var key newKeyView
	if err := json.Unmarshal([]byte(made), &key); err != nil {
		t.Fatal(err)
	}
	for _, l := range w.logs.All() {
		text := fmt.Sprintf("%+v", l.ContextMap())
		if strings.Contains(text, "pass-word") || strings.Contains(text, key.Secret) {
			t.Errorf("a secret in %s", text)
		}
	}
}

// Two clients that add keys at once cannot pass the limit between them.
func TestKeyLimitAtOnce(t *testing.T) {
	w := newWorld(t, Options{})
	for i := range maxKeys - 2 {
		k := account.Key{ID: fmt.Sprintf("%022d", i), Owner: "2", Name: "x"}
		if err := w.store.PutKey(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	codes := make(chan int)
	for range 4 {
		go func() {
			req, _ := http.NewRequest("POST", w.server.URL+"/v3/api_keys", strings.NewReader(`{"name":"x"}`))
			req.Header.Set("Authorization", "Bearer "+w.vars["sub1"])
			res, err := plainClient().Do(req)
			if err != nil {
				codes <- 0
				return
			}
			res.Body.Close()
			codes <- res.StatusCode
		}()
	}
	count := map[int]int{}
	for range 4 {
		count[<-codes]++
	}
	if count[201] != 1 || count[403] != 3 {
		t.Errorf("status codes %v, want one 201 and three 403", count)
	}
}

// Requests are counted by route, never by the path that was asked for.
func TestRequestsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := New(Options{}, Deps{}, reg).Public
	for _, path := range []string{"/v3/api_keys/a", "/v3/api_keys/b", "/secret/path"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", path, nil))
	}
	families, err := reg.Gather()
	i := slices.IndexFunc(families, func(f *dto.MetricFamily) bool { return f.GetName() == "tlsrelay_api_requests_total" })
	if err != nil || i < 0 {
		t.Fatal(families, err)
	}
	got := map[string]float64{}
	for _, m := range families[i].GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetValue())
		}
		got[strings.Join(labels, " ")] = m.GetCounter().GetValue()
	}
	want := map[string]float64{"401 /v3/api_keys/{id}": 2, "404 none": 1}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}

// A rule for a domain binds until it expires, to the moment.
func TestRuleExpires(t *testing.T) {
	now := testNow
	w := newWorld(t, Options{Now: func() time.Time { return now }})
	w.get(t, "PUT", "/relay/v1/domains/example.com", "full", `{"require_tls":true,"expires":"2026-05-04T13:00:00Z"}`)
	for _, c := range []struct {
		at   time.Time
		want string
	}{
		{time.Date(2026, 5, 4, 12, 59, 59, 0, time.UTC), `"source":"override"`},
		{time.Date(2026, 5, 4, 13, 0, 0, 0, time.UTC), `"demands":null`},
	} {
		now = c.at
		if _, body := w.get(t, "POST", "/relay/v1/check", "full", `{"domain":"example.com"}`); !strings.Contains(body, c.want) {
			t.Errorf("at %v: %s", now, body)
		}
	}
	if _, body := w.get(t, "GET", "/relay/v1/domains/example.com", "full", ""); !strings.Contains(body, `"in_force":false`) {
		t.Errorf("afterwards: %s", body)
	}
}

// loose is a store that finds the parent among the subusers, and lets a
// subuser have its name: account.Store does not forbid either.
type loose struct{ *store.Store }

func (l loose) AccountNamed(ctx context.Context, kind account.Kind, name string) (account.Account, error) {
	if name == "root" {
		return l.Store.Account(ctx, account.Parent)
	}
	return l.Store.AccountNamed(ctx, kind, name)
}

func (l loose) CreateAccount(_ context.Context, a account.Account) (account.Account, error) {
	return a, nil
}

// Nobody disables or deletes the parent as if it were a subuser, nor takes
// its name.
func TestParentIsNoSubuser(t *testing.T) {
	w := newWorldWith(t, Options{}, func(d *Deps) { d.Accounts = loose{d.Accounts.(*store.Store)} })
	for _, c := range []struct {
		method, body string
		want         int
	}{{"GET", "", 404}, {"PATCH", `{"disabled":true}`, 404}, {"DELETE", "", 404}} {
		if res, body := w.get(t, c.method, "/v3/subusers/root", "full", c.body); res.StatusCode != c.want {
			t.Errorf("%s: %d %s", c.method, res.StatusCode, body)
		}
	}
	if res, body := w.get(t, "POST", "/v3/subusers", "full", `{"username":"root"}`); res.StatusCode != 400 {
		t.Errorf("the parent's name: %d %s", res.StatusCode, body)
	}
	if res, _ := w.get(t, "GET", "/v3/scopes", "full", ""); res.StatusCode != 200 {
		t.Errorf("the parent's key: %d", res.StatusCode)
	}
}

// Where no source addresses are configured the system chooses them, and what
// others see may be a NAT's: a provider that names one is not refused.
func TestIPsOfTheSystemsChoice(t *testing.T) {
	w := newWorld(t, Options{})
	for body, want := range map[string]int{
		`["198.51.100.7","2001:db8::7"]`: 200, `["10.0.0.1"]`: 200, `["0.0.0.0"]`: 400, `["224.0.0.1"]`: 400, `["fe80::1%eth0"]`: 400, `["x"]`: 400,
	} {
		if res, text := w.get(t, "PUT", "/v3/subusers/sub1/ips", "full", body); res.StatusCode != want {
			t.Errorf("%s: %d %s", body, res.StatusCode, text)
		}
	}
}
