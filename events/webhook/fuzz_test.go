package webhook

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/http/httpguts"
)

// errDialled ends a request where a connection would be made.
var errDialled = errors.New("dialled")

// FuzzCheckURL holds the check of URLs against the client that posts to them: what
// passes is a request that can be made, is https unless that is waived, and never
// has the client dial an address that is written down and is not public, in no
// spelling. What names resolve to is looked at when they are dialled.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{
		"https://hooks.example.com/a?b=c#d", "https://u:p@example.com:8443/x", "http://127.0.0.1:80/", "https://10.0.0.1/", "https://[::1]:443/",
		"https://[::ffff:127.0.0.1]/", "https://[fe80::1%25eth0]/", "https://[fe80::1%25etheth0]0]/", "https://[2600::1%25eth0]/", "https://[64:ff9b::7f00:1]/", "https://127.0.0.1./", "https://0177.0.0.1/", "https://0x7f.1/",
		"https://2130706433/", "https://\uff11\uff12\uff17.0.0.1/", "https://127\u30020.0.1/", "https://\u2460\u2461\u2466.0.0.1/", "https://example.com:99999/", "https://example.com:0/", "https://example.com:/",
		"https://evil.example\\@127.0.0.1/", "https://127.0.0.1%2f.evil.example/", "HTTPS://EXAMPLE.COM", "https:example.com", "//example.com", "https://b\u00fccher.example/", "https://a b/", "https://a\n.b/", "https://]]\xbcc", "https://my_host:8443/", "",
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, raw string, insecure bool) {
		if err := CheckURL(raw, insecure); err != nil {
			if !errors.Is(err, ErrTarget) {
				t.Fatalf("%q: %v", raw, err)
			}
			return
		}
		if CheckURL(raw, true) != nil {
			t.Fatalf("%q passes only where less is allowed", raw)
		}
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "https" && !(insecure && u.Scheme == "http") {
			t.Fatalf("%q: %v %v", raw, u, err)
		}
		// The zone of an address, which net/url writes in another way than it reads it,
		// is for the operator who allows link-local targets to spell.
		if again := CheckURL(u.String(), insecure); again != nil && !strings.Contains(u.Host, "%") {
			t.Fatalf("%q passes and, as it is written back, %q does not", raw, u)
		}
		dialled := ""
		c := (&Sender{o: Options{AllowInsecure: insecure}}).newClient()
		c.Transport.(*http.Transport).DialContext = func(_ context.Context, _, addr string) (net.Conn, error) {
			dialled = addr
			return nil, errDialled
		}
		req, err := http.NewRequest(http.MethodPost, raw, strings.NewReader("[]"))
		if err != nil {
			t.Fatalf("%q passes, and cannot be asked: %v", raw, err)
		}
		if a := exchange(c, req); a.err == nil || !errors.Is(a.err, errDialled) {
			return // nothing was dialled, and nobody was asked
		}
		host, port, err := net.SplitHostPort(dialled)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
			t.Fatalf("%q dials %q", raw, dialled)
		}
		if addr, err := netip.ParseAddr(strings.TrimSuffix(host, ".")); err == nil && !insecure && !isPublic(addr) {
			t.Fatalf("%q dials %q", raw, dialled)
		}
	})
}

// isPublic knows the addresses that are not by what net/netip says of them, and
// those of RFC 6598 and RFC 6890.
func isPublic(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() || a.Zone() != "" {
		return false
	}
	for _, p := range []string{"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "240.0.0.0/4", "2001:db8::/32", "64:ff9b::/96"} {
		if netip.MustParsePrefix(p).Contains(a) {
			return false
		}
	}
	return true
}

// asked is a transport without a network.
type asked func(*http.Request) (*http.Response, error)

func (f asked) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzToken lets a token endpoint answer anything. Either the events are posted with
// a token that fits into a header and is kept for a day at most, or they are not
// posted and the answer is told as the token endpoint's, without its text.
func FuzzToken(f *testing.F) {
	for _, s := range []string{
		`{"access_token":"x","expires_in":3600}`, `{"access_token":"x","expires_in":"3600"}`, `{"access_token":"x","expires_in":1e300}`,
		`{"access_token":"x","expires_in":-1}`, `{"access_token":"x","expires_in":1e-300}`, `{"access_token":"a\r\nX-Evil: 1"}`, `{"access_token":"\u0000"}`, `{"access_token":"ü"}`,
		`{"access_token":null}`, `{"access_token":["x"]}`, `{"access_token":"x","access_token":""}`, `{"ACCESS_TOKEN":"x"}`, `[]`, ``, `{"access_token":" "}`, `{"access_token":"` + strings.Repeat("x", maxToken) + `"}`,
	} {
		f.Add(200, []byte(s))
	}
	f.Add(401, []byte(`{"error":"invalid_client"}`))
	f.Add(302, []byte("elsewhere"))
	f.Fuzz(func(t *testing.T, status int, said []byte) {
		if status < 100 || status > 999 {
			return
		}
		answer := func(status int, body string) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Location": {"https://127.0.0.1/"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
		}
		var posted []string
		s := New(Options{}, newMemory(), zap.NewNop(), nil)
		s.client.Transport = asked(func(r *http.Request) (*http.Response, error) {
			switch r.URL.Host {
			case "token.example.com":
				return answer(status, string(said))
			case "hooks.example.com":
				posted = append(posted, r.Header.Get("Authorization"))
				return answer(200, "")
			}
			t.Fatalf("asked %s", r.URL)
			return nil, nil
		})
		e := Endpoint{ID: "e", URL: "https://hooks.example.com/", OAuthTokenURL: "https://token.example.com/", OAuthClientID: "me", OAuthClientSecret: "hush"}
		a := s.post(t.Context(), e, []byte("[{}]\r\n"))
		if a.class != ClassOK {
			if a.class != ClassOAuth || len(posted) > 0 {
				t.Fatalf("%+v, posted %q", a, posted)
			}
			if words := a.err.Error(); len(said) > 20 && strings.Contains(words, string(said)) {
				t.Fatalf("the error tells %q", words)
			}
			return
		}
		token, ok := strings.CutPrefix(posted[0], "Bearer ")
		if !ok || token == "" || len(token) > maxToken || !httpguts.ValidHeaderFieldValue(token) || strings.TrimSpace(token) != token {
			t.Fatalf("%d %q gives the token %q", status, said, token)
		}
		for _, own := range s.tokens.kept {
			if life := time.Until(own[0].until); life > 24*time.Hour {
				t.Fatalf("%q is kept for %v", said, life)
			}
		}
	})
}
