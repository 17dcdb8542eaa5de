package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http/httpguts"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay/api/rest"
)

// FuzzKeyForm holds a key's form to this: nobody gives what he does not hold, and
// what is shown of a key makes the same one when it is sent back.
func FuzzKeyForm(f *testing.F) {
	for _, s := range []string{
		`{"name":"x"}`, `{"name":"x","scopes":[]}`, `{"name":"x","scopes":["user.settings.enforced_tls.read","mail.send"]}`, `{"name":"x","scopes":["stats.read","2fa_required"]}`,
		`{"name":"x","scopes":null}`, `{"name":"x","scopes":[null]}`, `{"name":"","scopes":["api_keys.create"]}`, `{"name":1}`, `{"scopes":["mail.send","mail.send"]}`, `{"name":"x","scopes":["MAIL.SEND"]}`, `[]`,
	} {
		f.Add([]byte(s), true, true)
		f.Add([]byte(s), false, true)
		f.Add([]byte(s), false, false)
	}
	f.Fuzz(func(t *testing.T, body []byte, full, isNew bool) {
		caller := account.Key{ID: "caller", Full: full, Scopes: []account.Scope{account.MailSend, account.KeysCreate, account.KeysUpdate}}
		var before account.Key
		if !isNew {
			before = account.Key{ID: "old", Name: "old", Scopes: []account.Scope{account.EnforcedTLSRead}}
		}
		o, err := rest.ParseObject(body)
		var k account.Key
		if err == nil {
			k, err = readKey(o, caller, before)
		}
		if err != nil {
			fields := wrongFields(t, err)
			if o != nil && len(fields) == 0 || slices.ContainsFunc(fields, func(n string) bool { return n != "name" && n != "scopes" }) {
				t.Fatalf("%q is refused for %q", body, fields)
			}
			return
		}
		if k.Name == "" || k.Full && !caller.Full {
			t.Fatalf("%q makes %+v", body, k)
		}
		for _, s := range account.AllScopes() {
			if k.Allows(s) && !caller.Allows(s) && !before.Allows(s) {
				t.Fatalf("%q gives %s, which the caller has not", body, s)
			}
		}
		shown := encoded(t, viewKey(k))
		o, err = rest.ParseObject(shown)
		if err != nil {
			t.Fatal(err)
		}
		again, err := readKey(o, account.Key{Full: true}, account.Key{ID: "k"})
		if err != nil || string(encoded(t, viewKey(account.Key{Name: again.Name, Full: again.Full, Scopes: again.Scopes, ID: k.ID}))) != string(shown) {
			t.Fatalf("%s, sent back: %v, %+v", shown, err, again)
		}
	})
}

// wrongFields holds an error to be the client's, and gives the fields that it names.
func wrongFields(t *testing.T, err error) (names []string) {
	t.Helper()
	var told *rest.Fault
	if !errors.As(err, &told) || told.Status() != http.StatusBadRequest || len(told.Fields()) == 0 {
		t.Fatalf("told to nobody: %v", err)
	}
	for _, f := range told.Fields() {
		if f.Message == "" {
			t.Fatalf("an error without words: %v", err)
		}
		if f.Field != nil {
			names = append(names, *f.Field)
		}
	}
	return names
}

// countedList is a list of blocks of any length that keeps what it was asked for.
type countedList struct {
	events.BlockStore
	total *int
	asked *events.BlockFilter
}

func (l countedList) Blocks(_ context.Context, _ string, f events.BlockFilter) ([]events.Block, int, error) {
	*l.asked = f
	return nil, *l.total, nil
}

var linkForm = regexp.MustCompile(`^<([^<>\s]*)>; rel="(next|prev|last|first)"; title="([0-9]+)"$`)

// FuzzBlockList holds a page of the block list to its query: a filter that is not
// understood is told of by name, and each link leads to the same host and path, with
// the same filters, to the page that it says.
func FuzzBlockList(f *testing.F) {
	for _, s := range []string{
		"", "limit=10&offset=20", "limit=1", "limit=0", "limit=501", "limit=-1", "limit=1e2", "offset=4294967296", "offset=2147483647&limit=500", "start_time=1&end_time=2", "start_time=999999999999999",
		"start_time=x", "end_time=-5", "email=a%25b%2Bc&limit=2", "email=%zz", "email=a;b", "email=a&email=b", "email=%00%0d%0aX:%20y", "x=%3E%22%2C&limit=3", "limit=5&limit=6", "%6cimit=7", "limit=", "include_region=true",
	} {
		f.Add(s, "relay.example:8025", uint16(100))
	}
	f.Add("limit=1", "[::1]", uint16(3))
	f.Add("limit=1", "a@b", uint16(3))
	f.Add("limit=1", "a,b;c", uint16(3))
	var asked events.BlockFilter
	var total int
	h := newHousehold(f, func(d *Deps) { d.Blocks = countedList{total: &total, asked: &asked} })
	f.Fuzz(func(t *testing.T, query, host string, many uint16) {
		const path = "/v3/suppression/blocks"
		if strings.ContainsFunc(query, func(r rune) bool { return r <= ' ' || r == 0x7f }) || strings.Contains(query, "#") || !httpguts.ValidHostHeader(host) || host == "" {
			return // net/http lets no such request through
		}
		if u, err := url.Parse("http://" + host); err != nil || u.Host != host {
			return // nobody comes here by a URL with such a host
		}
		ask := func(target string) *httptest.ResponseRecorder {
			u, err := url.ParseRequestURI(target)
			if err != nil {
				t.Fatalf("%q: %v", target, err)
			}
			r := &http.Request{Method: http.MethodGet, URL: u, Host: host, Header: http.Header{"Authorization": {"Bearer " + h.keys["root"]}}, Body: http.NoBody}
			return h.ask(r.WithContext(t.Context()))
		}
		total = int(many)
		w := ask(path + "?" + query)
		if w.Code == http.StatusBadRequest {
			if len(checkRefusal(t, w.Body.Bytes())) == 0 {
				t.Fatalf("%q is refused, and no parameter named", query)
			}
			return
		}
		q, _ := url.ParseQuery(query)
		got := asked
		if w.Code != http.StatusOK || got.Limit < 1 || got.Limit > 500 || got.Offset < 0 || got.Prefix != q.Get("email") {
			t.Fatalf("%q: %d, %+v", query, w.Code, got)
		}
		for name, at := range map[string]time.Time{"start_time": got.From, "end_time": got.To} {
			if n, err := strconv.ParseInt(q.Get(name), 10, 64); (err == nil) == at.IsZero() || err == nil && at.Unix() != min(n, rest.LastSecond) {
				t.Fatalf("%q: %s is %v", query, name, at)
			}
		}
		link := w.Header().Get("Link")
		if link == "" {
			if many > 0 {
				t.Fatalf("%q: no links", query)
			}
			return
		}
		for _, one := range strings.Split(link, ", <") {
			m := linkForm.FindStringSubmatch("<" + strings.TrimPrefix(one, "<"))
			if m == nil {
				t.Fatalf("%q: the link %q", query, link)
			}
			u, err := url.Parse(m[1])
			if err != nil || u.Host != host || u.Path != path || u.User != nil || u.Scheme != "http" || len(u.Query()["limit"]) != 1 || len(u.Query()["offset"]) != 1 {
				t.Fatalf("%q at %q: a link to %q", query, host, m[1])
			}
			offset, _ := strconv.Atoi(u.Query().Get("offset"))
			want := map[string]bool{
				"first": offset == 0, "last": offset < int(many) && offset+got.Limit >= int(many),
				"next": offset == got.Offset+got.Limit && offset < int(many), "prev": offset == max(0, got.Offset-got.Limit) && got.Offset > 0,
			}
			if !want[m[2]] {
				t.Fatalf("%q of %d: %q", query, many, m[0])
			}
			if w := ask(u.RequestURI()); w.Code != http.StatusOK || asked.Offset != offset {
				t.Fatalf("%q: the link %q gives %d, %+v", query, m[1], w.Code, asked)
			}
			if asked.Offset = got.Offset; asked != got {
				t.Fatalf("%q asks for %+v, and its link %q for %+v", query, got, m[1], asked)
			}
		}
	})
}

// FuzzBody sends any body to every call that takes one, with a store behind it:
// nothing fails as the relay's own fault, and what is refused is told in JSON.
func FuzzBody(f *testing.F) {
	var targets []string
	for _, r := range ofSurface(newServer(Options{}, Deps{}).routes(), false) {
		if r.Method != http.MethodGet && r.Scope != rest.Open {
			targets = append(targets, r.Method+" "+strings.NewReplacer("{id}", "x", "{name}", "sub1", "{email}", "a@b.example", "{domain}", "a.example").Replace(r.Path))
		}
	}
	for i := range targets {
		f.Add(uint8(i), []byte(`{}`))
	}
	for target, bodies := range map[string][]string{
		"POST /v3/subusers":                             {`{"username":"new","email":"a@b.example","password":"x","ips":["192.0.2.1"]}`, `{"username":null}`},
		"PATCH /v3/subusers/sub1":                       {`{"disabled":false}`},
		"PUT /v3/subusers/sub1/ips":                     {`["192.0.2.1"]`, `{"ips":null}`, `[`},
		"DELETE /v3/suppression/blocks":                 {`{"delete_all":true}`, `{"emails":["a@b.example",""]}`},
		"POST /v3/user/webhooks/event/settings":         {`{"url":"https://a.example/","enabled":true}`},
		"PATCH /v3/user/webhooks/event/settings":        {`{"url":"https://b.example/"}`, `null`},
		"PATCH /v3/user/webhooks/event/settings/signed": {`{"enabled":true}`, `{"enabled":"\ud800"}`},
		"POST /v3/user/webhooks/event/test":             {`{"url":"https://a.example/","id":"x"}`},
		"POST /v3/api_keys":                             {`{"name":"k","scopes":["mail.send"]}`},
		"PATCH /v3/user/settings/enforced_tls":          {`{"require_tls":true,"version":1.3}`},
		"POST /relay/v1/check":                          {`{"domain":"a.example","version":1.3}`},
		"PATCH /relay/v1/settings":                      {`{"on_violation":"defer","requiretls":"relaxed","mx_auth_required":true}`, `{"report_only":null}`},
		"PUT /relay/v1/domains/a.example": {
			`{"require_tls":true,"expires":"2030-01-01T00:00:00+24:00","reason":"x"}`, `{"expires":"9999-12-31T23:59:59-23:59","require_tls":true}`,
		},
	} {
		i := slices.Index(targets, target)
		if i < 0 {
			f.Fatal("no such call: ", target)
		}
		for _, body := range bodies {
			f.Add(uint8(i), []byte(body))
		}
	}
	h := newHousehold(f, nil)
	f.Fuzz(func(t *testing.T, i uint8, body []byte) {
		target := targets[int(i)%len(targets)]
		ask := func(target, body string) *httptest.ResponseRecorder {
			method, path, _ := strings.Cut(target, " ")
			r := httptest.NewRequest(method, path, strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer "+h.keys["root"])
			return h.ask(r)
		}
		w := ask(target, string(body))
		if w.Code >= 500 || w.Code < 200 || w.Body.Len() > 0 && !json.Valid(w.Body.Bytes()) || w.Code == http.StatusNoContent && w.Body.Len() > 0 {
			t.Fatalf("%s with %q: %d %s", target, body, w.Code, w.Body)
		}
		if w.Code >= 300 {
			checkRefusal(t, w.Body.Bytes())
			return
		}
		// What came to be goes, so that the store stays small.
		var made struct {
			ID       string `json:"id"`
			Key      string `json:"api_key_id"`
			Username string `json:"username"`
		}
		if w.Code != http.StatusCreated || json.Unmarshal(w.Body.Bytes(), &made) != nil {
			return
		}
		gone := fmt.Sprintf("DELETE %s/%s", strings.TrimPrefix(target, "POST "), url.PathEscape(made.ID+made.Key+made.Username))
		if w := ask(gone, ""); w.Code != http.StatusNoContent {
			t.Fatalf("%s with %q made %+v, and %s: %d %s", target, body, made, gone, w.Code, w.Body)
		}
	})
}
