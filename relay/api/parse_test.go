package api

import (
	"context"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay/api/mail"
	"tlsrelay/relay/api/rest"
)

type slowChecker struct {
	Checker
	hold    <-chan struct{}
	entered chan<- struct{}
}

func (c slowChecker) Check(ctx context.Context, domain string, s policy.Sender) (any, error) {
	c.entered <- struct{}{}
	<-c.hold
	return c.Checker.Check(ctx, domain, s)
}

func TestParseNumberVersion(t *testing.T) {
	for text, want := range map[string]policy.Version{
		"1.1": policy.TLS11, "1.10": policy.TLS11, "11e-1": policy.TLS11, "0.11e1": policy.TLS11, "110E-2": policy.TLS11,
		"1.2": policy.TLS12, "1.2000": policy.TLS12, "12e-1": policy.TLS12, "0.00012e+4": policy.TLS12,
		"1.3": policy.TLS13, "1.3e0": policy.TLS13, "1.3e-0": policy.TLS13, "1.3e0000000000000000000000": policy.TLS13,
		"1": 0, "1.0": 0, "1.4": 0, "2": 0, "0": 0, "-1.2": 0, "12": 0, "1.21": 0, "1.02": 0, "1.2e1": 0, "1.2e-1": 0,
		"1.1000000000000000888": 0, "1.100000024": 0,
		"1.2e999999999999999999": 0, "1.2e-999999999999999999": 0, "12e-9223372036854775808": 0,
		`"1.2"`: 0, "null": 0, "true": 0, "false": 0, "[1.2]": 0, "{}": 0, `""`: 0,
	} {
		got, ok := parseNumberVersion(text)
		if got != want || ok != (want != 0) {
			t.Errorf("%s: %v, %v, want %v", text, got, ok, want)
		}
	}
}

// FuzzSettings holds the parser of settings against a slow one: what it
// accepts is exactly what the rules of CONTRACT.md accept, and applying it
// gives what the body says.
func FuzzSettings(f *testing.F) {
	for _, s := range []string{
		`{}`, `{"require_tls":true,"require_valid_cert":false,"version":1.2}`, `{"version":12e-1}`, `{"version":"1.2"}`,
		`{"require_tls":null}`, `{"require_tls":1,"version":1.4}`, `[]`, `null`, ``, `{} {}`, `{"version":1.20,"version":2}`,
		`{"version":0.00000012E7}`, `{"Require_tls":true}`, "\xef\xbb\xbf{}", `{"\u0076ersion":1.3}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := rest.ParseObject(body)
		var plain map[string]any
		dec := json.NewDecoder(strings.NewReader(string(body)))
		dec.UseNumber()
		isObject := json.Valid(body) && dec.Decode(&plain) == nil && plain != nil
		if (err == nil) != isObject {
			t.Fatalf("an object: %v, but %v", isObject, err)
		}
		if err != nil {
			return
		}
		change, err := parseTLS(o, o.Raw("version"))
		want := policy.Settings{RequireTLS: true, MinVersion: policy.TLS12}
		valid := oracle(plain, &want)
		if (err == nil) != valid {
			t.Fatalf("valid: %v, but %v", valid, err)
		}
		if err != nil {
			return
		}
		got := policy.Settings{RequireTLS: true, MinVersion: policy.TLS12}
		if change.apply(&got); got != want {
			t.Fatalf("%s gives %+v, want %+v", body, got, want)
		}
	})
}

func oracle(plain map[string]any, to *policy.Settings) (valid bool) {
	valid = true
	for name, flag := range map[string]*bool{"require_tls": &to.RequireTLS, "require_valid_cert": &to.RequireValidCert} {
		if v, ok := plain[name]; ok {
			b, isBool := v.(bool)
			*flag, valid = b, valid && isBool
		}
	}
	v, ok := plain["version"]
	if !ok {
		return valid
	}
	n, isNumber := v.(json.Number)
	if !isNumber {
		return false
	}
	if _, exp, found := strings.Cut(strings.ToLower(string(n)), "e"); found && len(strings.TrimLeft(exp, "+-0")) > 4 {
		return false // too large for the slow way; and no body is long enough to make up for it
	}
	r, ok := new(big.Rat).SetString(string(n))
	if !ok {
		return false
	}
	for tenths, version := range map[int64]policy.Version{11: policy.TLS11, 12: policy.TLS12, 13: policy.TLS13} {
		if r.Cmp(big.NewRat(tenths, 10)) == 0 {
			to.MinVersion = version
			return valid
		}
	}
	return false
}

// A floor that only another program can have stored is shown as what it
// means, 1.3, and FIPS 140 mode has no 1.1.
func TestViewSettingsVersion(t *testing.T) {
	for _, c := range []struct {
		s    policy.Settings
		fips bool
		want string
	}{
		{policy.Settings{RequireTLS: true}, false, "1.1"},
		{policy.Settings{RequireTLS: true}, true, "1.2"},
		{policy.Settings{RequireValidCert: true, MinVersion: policy.TLS13}, true, "1.3"},
		{policy.Settings{RequireTLS: true, MinVersion: policy.TLS10}, false, "1.3"},
		{policy.Settings{MinVersion: policy.TLS13}, false, ""},
	} {
		got := ""
		if v := viewSettings(policy.Sender{Account: c.s}, c.fips).EffectiveVersion; v != nil {
			got = v.String()
		}
		if got != c.want {
			t.Errorf("%+v, fips %v: %q, want %q", c.s, c.fips, got, c.want)
		}
	}
}

// The OpenAPI document and the routes tell the same calls, with the same
// scopes and success codes; and the answers have the fields it names.
func TestOpenAPI(t *testing.T) {
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
		Parts   struct {
			Schemas map[string]struct {
				Properties map[string]any `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	text, err := os.ReadFile("openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("OpenAPI version %q", doc.OpenAPI)
	}
	documented := map[string]json.RawMessage{}
	for path, calls := range doc.Paths {
		for method, call := range calls {
			if method != "parameters" {
				documented[strings.ToUpper(method)+" "+path] = call
			}
		}
	}
	for _, r := range ofSurface(newServer(Options{}, Deps{}).routes(), false) {
		if !strings.HasPrefix(r.Path, rest.OurPrefix) {
			continue
		}
		name := r.Method + " " + r.Path
		call, ok := documented[name]
		if !ok {
			t.Errorf("%s is not documented", name)
			continue
		}
		delete(documented, name)
		if r.Scope != rest.Open && !strings.Contains(string(call), "`"+string(r.Scope)+"`") {
			t.Errorf("%s: the document does not name its scope %s", name, r.Scope)
		}
		var op struct {
			Responses map[string]any `json:"responses"`
		}
		if err := json.Unmarshal(call, &op); err != nil {
			t.Fatal(err)
		}
		if _, ok := op.Responses[jsonNumber(r.Success)]; !ok {
			t.Errorf("%s: the document has no %d", name, r.Success)
		}
	}
	for name := range documented {
		t.Errorf("%s is documented, and not there", name)
	}
	for name, v := range map[string]any{
		"Settings": settingsView{}, "Rule": domainView{}, "Message": mail.MessageView{},
		"Block": mail.EvidenceView{}, "Delivery": mail.DeliveryView{}, "Problem": rest.Problem{Errors: []rest.FieldFault{{}}},
	} {
		want := keysOf(t, v)
		var got []string
		for field := range doc.Parts.Schemas[name].Properties {
			got = append(got, field)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("schema %s has %q, the answer %q", name, got, want)
		}
	}
}

func jsonNumber(n int) string { return strconv.Itoa(n) }

func encoded(t *testing.T, v any) []byte {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func keysOf(t *testing.T, v any) []string {
	t.Helper()
	var m map[string]any
	// Zero times and numbers of type json.Number are none; fill what is needed.
	if d, ok := v.(domainView); ok {
		d.Version = "1.1"
		v = d
	}
	if err := json.Unmarshal(encoded(t, v), &m); err != nil {
		t.Fatal(err)
	}
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// No two routes share method and path, and each names a real method.
func TestRoutesAreDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range newServer(Options{}, Deps{}).routes() {
		name := r.Method + " " + r.Path
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
		if !slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}, r.Method) {
			t.Errorf("%s: no method", name)
		}
		if !slices.Contains([]account.Scope{rest.AnyKey, rest.Open, rest.Operator}, r.Scope) && !r.Scope.Known() {
			t.Errorf("%s: no scope %q", name, r.Scope)
		}
	}
}

// FuzzPath sends any path to the real mux: the answer is never a redirect,
// and what is not there is told in JSON, in the dialect of the path.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/", "//", "/v3//user/settings/enforced_tls", "/v3/scopes/", "/v3/../v3/scopes", "/relay//v1/x", "/%2e%2e/", "/v3/%2Fscopes",
		"/v3/suppression/blocks/a%2Bb", `/v3/"%2F%2Fx`, "/relay/v1/openapi.json/", "/v3/subusers/%00", "/v3/api_keys/.", "v3", "*",
	} {
		f.Add(s)
	}
	h := New(Options{}, Deps{}, nil).Public
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.Parse(target)
		if err != nil || !strings.HasPrefix(u.Path, "/") {
			return
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, &http.Request{Method: http.MethodGet, URL: u, Host: "relay.example", Header: http.Header{}, Body: http.NoBody})
		if w.Code != 401 && w.Code != 404 && w.Code != 405 && w.Code != 200 {
			t.Errorf("%q: %d", target, w.Code)
		}
		if !json.Valid(w.Body.Bytes()) || !strings.HasSuffix(w.Header().Get("Content-Type"), "json") {
			t.Errorf("%q: %s %s", target, w.Header(), w.Body)
		}
	})
}
