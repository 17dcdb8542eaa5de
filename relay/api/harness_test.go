package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/events/webhook"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay/store"
)

// world is the API over a real listener, with a parent, three children and
// keys of many kinds.
type world struct {
	t      *testing.T
	store  *store.Store
	server *httptest.Server
	vars   map[string]string // what {{name}} stands for
	logs   *observer.ObservedLogs
	check  fakeChecker
	test   fakeTester
}

// testNow is the time in every test that does not say otherwise.
var testNow = time.Date(2026, 5, 4, 12, 0, 30, 0, time.UTC)

func newWorld(t *testing.T, o Options) *world { return newWorldWith(t, o, nil) }

// newWorldWith lets a test change what the API is given.
func newWorldWith(t *testing.T, o Options, change func(*Deps)) *world {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return testNow }
	}
	core, logs := observer.New(zapcore.DebugLevel)
	st, err := store.Open(store.Options{Dir: "data", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	w := &world{t: t, store: st, vars: map[string]string{}, logs: logs}
	w.seed()
	d := Deps{
		Accounts: w.store, Overrides: w.store, Webhooks: w.store, Blocks: w.store, Messages: w.store,
		Checker: &w.check, Tester: &w.test, Log: zap.New(core),
	}
	if change != nil {
		change(&d)
	}
	w.server = httptest.NewServer(New(o, d, prometheus.NewRegistry()).Public)
	t.Cleanup(w.server.Close)
	w.vars["url"] = w.server.URL
	w.vars["host"] = strings.TrimPrefix(w.server.URL, "http://")
	return w
}

// seed makes the accounts and keys that the text cases speak of.
func (w *world) seed() {
	ctx := context.Background()
	for _, a := range []account.Account{
		{Kind: account.KindParent, Username: "root"},
		{Kind: account.KindSubuser, Username: "sub1", Email: "sub1@example.com"},
		{Kind: account.KindSubuser, Username: "gone", Email: "gone@example.com", Disabled: true},
		{Kind: account.KindCustomer, Username: "1234"},
	} {
		if _, err := w.store.CreateAccount(ctx, a); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, k := range map[string]account.Key{
		"full":     {Owner: "1", Full: true},
		"none":     {Owner: "1"},
		"read":     {Owner: "1", Scopes: []account.Scope{account.EnforcedTLSRead}},
		"keys":     {Owner: "1", Scopes: []account.Scope{account.KeysCreate, account.KeysRead, account.KeysUpdate, account.MailSend}},
		"sub1":     {Owner: "2", Full: true},
		"gone":     {Owner: "3", Full: true},
		"customer": {Owner: "4", Full: true},
	} {
		secret := account.NewSecret()
		k.Name, k.Created = name, testNow
		k.ID, k.Hash, _ = account.SplitSecret(secret)
		w.vars[name] = secret
		w.vars[name+"_id"] = k.ID
		if err := w.store.PutKey(ctx, k); err != nil {
			w.t.Fatal(err)
		}
	}
}

// fakeChecker reports what it was asked.
type fakeChecker struct{ err error }

func (c *fakeChecker) Check(_ context.Context, domain string, s policy.Sender) (any, error) {
	return map[string]any{"destination": domain, "demands": s.Demands().List}, c.err
}

// fakeTester keeps the endpoint it was given.
type fakeTester struct {
	err  error
	last webhook.Endpoint
}

func (f *fakeTester) Test(_ context.Context, e webhook.Endpoint) error {
	f.last = e
	return f.err
}

// exchange is one request of a text case and the reply it must get.
//
//	# what it is about
//	PATCH /v3/user/settings/enforced_tls
//	key: full
//	on-behalf-of: sub1
//	{"require_tls":true}
//	=> 200
//	Content-Type: application/json
//	{"require_tls":true,"require_valid_cert":false,"version":1.1}
//
// "key: NAME" stands for an Authorization header. {{name}} is replaced in a
// request by the value of that name; in an expected reply it matches anything
// without a quote and gives the value that name, or must equal the value the
// name has. A header without a value must be absent. The expected body is the
// whole body; "" must be said as "(empty)", and a reply whose body does not
// matter says nothing.
type exchange struct {
	line               int
	title              string
	method, target     string
	header, wantHeader []string
	body               string
	status             string
	wantBody           []string
}

func parseExchanges(t *testing.T, file string) []exchange {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []exchange
	var x *exchange
	isHeader := regexp.MustCompile(`^[A-Za-z-]+:`)
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case strings.HasPrefix(line, "# "):
			all = append(all, exchange{line: i + 1, title: line[2:]})
			x = &all[len(all)-1]
		case line == "":
		case x == nil:
			t.Fatalf("%s:%d: no title", file, i+1)
		case x.method == "":
			x.method, x.target, _ = strings.Cut(line, " ")
		case strings.HasPrefix(line, "=> "):
			x.status = line[3:]
		case x.status == "" && isHeader.MatchString(line):
			x.header = append(x.header, line)
		case x.status == "":
			x.body += line
		case isHeader.MatchString(line):
			x.wantHeader = append(x.wantHeader, line)
		default:
			x.wantBody = append(x.wantBody, line)
		}
	}
	return all
}

// run plays the exchanges of a file in order.
func (w *world) run(file string) {
	for _, x := range parseExchanges(w.t, file) {
		w.t.Run(fmt.Sprintf("%d_%s", x.line, x.title), func(t *testing.T) { w.play(t, x) })
	}
}

var variable = regexp.MustCompile(`\{\{(\w+)\}\}`)

func (w *world) fill(s string) string {
	return variable.ReplaceAllStringFunc(s, func(v string) string {
		value, ok := w.vars[v[2:len(v)-2]]
		if !ok {
			w.t.Fatalf("%s has no value", v)
		}
		return value
	})
}

func (w *world) play(t *testing.T, x exchange) {
	req, err := http.NewRequest(x.method, w.server.URL+w.fill(x.target), strings.NewReader(w.body(x.body)))
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range x.header {
		name, value, _ := strings.Cut(h, ":")
		value = w.fill(strings.TrimSpace(value))
		if name == "key" {
			name, value = "Authorization", "Bearer "+w.vars[value]
		}
		req.Header.Set(name, value)
	}
	res, err := plainClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(res.StatusCode); got != x.status {
		t.Errorf("status %s, want %s; body %s", got, x.status, body)
	}
	for _, h := range x.wantHeader {
		name, want, _ := strings.Cut(h, ":")
		w.match(t, name, strings.Join(res.Header.Values(name), ", "), strings.TrimSpace(want))
	}
	if len(x.wantBody) > 0 {
		want := strings.Join(x.wantBody, "\n")
		if want == "(empty)" {
			want = ""
		}
		w.match(t, "body", string(body), want)
	}
	if len(res.Header.Get("X-Request-Id")) != 26 {
		t.Errorf("X-Request-Id is %q", res.Header.Get("X-Request-Id"))
	}
}

// body makes the request's body; "(N bytes)" stands for a long object.
func (w *world) body(s string) string {
	var n int
	if _, err := fmt.Sscanf(s, "(%d bytes)", &n); err == nil {
		return `{"x":"` + strings.Repeat("x", n-8) + `"}`
	}
	return w.fill(s)
}

// match compares text with a pattern that may hold variables.
func (w *world) match(t *testing.T, what, got, want string) {
	t.Helper()
	var pattern strings.Builder
	var names []string
	rest := want
	for {
		at := variable.FindStringSubmatchIndex(rest)
		if at == nil {
			break
		}
		name := rest[at[2]:at[3]]
		pattern.WriteString(regexp.QuoteMeta(rest[:at[0]]))
		if value, ok := w.vars[name]; ok {
			pattern.WriteString(regexp.QuoteMeta(value))
		} else {
			pattern.WriteString(`([^"]*)`)
			names = append(names, name)
		}
		rest = rest[at[1]:]
	}
	pattern.WriteString(regexp.QuoteMeta(rest))
	found := regexp.MustCompile(`^` + pattern.String() + `$`).FindStringSubmatch(got)
	if found == nil {
		t.Errorf("%s is\n%s\nwant\n%s", what, got, want)
		return
	}
	for i, name := range names {
		if name != "any" {
			w.vars[name] = found[i+1]
		}
	}
}

// plainClient follows no redirects: the API must not need them.
func plainClient() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       10 * time.Second,
	}
}

func TestExchanges(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no text cases", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			w := newWorld(t, Options{RequestsPerMinute: 1000, SourceAddresses: []netip.Addr{
				netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"),
			}})
			w.seedMail()
			w.run(file)
		})
	}
}
