package admin

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzOnlyOperator plays a browser that a page has sent here, with any headers. What gets
// through has the token, or a Host that no stranger's name can be; a change says that
// it is JSON, and comes from the page's own origin where it says from where.
func FuzzOnlyOperator(f *testing.F) {
	const token = "s3cret"
	for _, host := range []string{
		"127.0.0.1:8026", "localhost", "LOCALHOST.:1", "[::1]:8026", "[::ffff:127.0.0.1]", "relay.svc", "evil.example:8026", "127.0.0.1.evil.example", "localhost.evil.example",
		"[localhost]", "]localhost", "127.0.0.1:evil.example", "127.1", "0x7f.1", "", "a@127.0.0.1", "[::1%25lo]", "0.0.0.0", "192.0.2.1:8026",
	} {
		f.Add(host, "", "application/json", "", "", uint8(0))
		f.Add(host, "http://"+host, "application/json; charset=utf-8", "same-origin", "Bearer s3cret", uint8(1))
		f.Add(host, "http://evil.example", "text/plain", "cross-site", "Bearer s3cres", uint8(3))
		f.Add(host, "null", "application/json", "", "bearer s3cret", uint8(1))
	}
	f.Add("127.0.0.1", "http://127.0.0.1@evil.example", "application/json", "", "", uint8(1))
	f.Add("127.0.0.1", "http://evil.example/127.0.0.1", "application/json,text/plain", "", "", uint8(1))
	f.Add("127.0.0.1", "", "text/plain; x=application/json", "cross-site", "", uint8(4))
	f.Fuzz(func(t *testing.T, host, origin, contentType, site, authorization string, how uint8) {
		o := Options{Listen: "127.0.0.1:8026", Hosts: []string{"relay.svc", "2001:db8::1"}}
		r := httptest.NewRequest(http.MethodGet, "/admin/v1/queue", nil)
		if how&1 != 0 {
			r.Method = http.MethodPost
		}
		if how&2 != 0 {
			o.Token = token
		}
		if how&4 != 0 {
			r.URL.Path = "/debug/pprof/profile"
		}
		r.Host = host
		for name, value := range map[string]string{"Origin": origin, "Content-Type": contentType, "Sec-Fetch-Site": site, "Authorization": authorization} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		through := false
		w := httptest.NewRecorder()
		onlyOperator(o, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { through = true })).ServeHTTP(w, r)
		if through != (w.Code == http.StatusOK) {
			t.Fatalf("through: %v, and %d", through, w.Code)
		}
		if !through {
			return
		}
		switch known := o.Token != "" && authorization == "Bearer "+token; {
		case o.Token != "" && !known:
			t.Fatalf("through without the token, with %q", authorization)
		case !known && !namesOperator(host):
			t.Fatalf("through at %q", host)
		}
		if how&4 != 0 && site == "cross-site" {
			t.Fatal("a profile for another site")
		}
		if how&1 == 0 {
			return
		}
		if kind, _, _ := strings.Cut(contentType, ";"); !strings.EqualFold(strings.TrimSpace(kind), "application/json") {
			t.Fatalf("a change as %q", contentType)
		}
		if origin != "" && host != "" && !isOrigin(origin, host) {
			t.Fatalf("a change at %q from %q", host, origin)
		}
	})
}

// namesOperator reports whether a browser that sends this Host was told to go to the
// operator's listener by an address or a name that nobody else can have. What is
// no host of a URL comes from no browser.
func namesOperator(host string) bool {
	u, err := url.Parse("http://" + host)
	if err != nil || u.Host != host {
		return true
	}
	name := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if ip, err := netip.ParseAddr(name); err == nil {
		return ip.Unmap().WithZone("").IsLoopback() || ip == netip.MustParseAddr("2001:db8::1")
	}
	return slices.Contains([]string{"localhost", "relay.svc"}, name)
}

// isOrigin reports whether an origin is that of pages at host, by its text alone.
func isOrigin(origin, host string) bool {
	_, rest, _ := strings.Cut(origin, "//")
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	return authority[strings.LastIndexByte(authority, '@')+1:] == host
}
