package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"tlsrelay/relay/api/rest"
	"tlsrelay/relay/web"
)

// onlyOperator lets a request through to next only if it comes from somebody who could
// be the operator. Every web page that the operator's browser shows can reach a
// listener on loopback, so a token is not enough, and its absence must not be
// fatal:
//
//   - The Host is ours, which stops DNS rebinding.
//   - Sec-Fetch-Site (W3C Fetch Metadata) names no other site and no other origin
//     of ours: a page of another port of localhost is same-site. A read changes
//     nothing, but a page could keep the profiler on, or the queue's lists busy.
//   - A change comes as JSON and without a foreign Origin, which stops forged
//     forms, also those of browsers that do not send Sec-Fetch-Site.
//
// A caller with the token is no rebound page, and may use any Host; so may a caller
// that only asks whether the relay is well.
func onlyOperator(o Options, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + o.Token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		known := o.Token != "" && sameToken(r.Header.Get("Authorization"), want)
		switch {
		case !open && !known && !o.ownHost(r.Host):
			rest.Refuse(w, http.StatusMisdirectedRequest, "this Host is not the operator's listener; admin.hosts may name it")
		case !open && !known && o.Token != "":
			w.Header().Set("WWW-Authenticate", "Bearer")
			web.Denied(w, r)
			rest.Refuse(w, http.StatusUnauthorized, "a token is needed")
		case fromOtherPage(r) && !followsLink(r):
			rest.Refuse(w, http.StatusForbidden, "a request of a page that is not the operator's")
		case changes(r) && !ownOrigin(r):
			rest.Refuse(w, http.StatusForbidden, "a change from another origin")
		case changes(r) && !isJSON(r):
			rest.Refuse(w, http.StatusUnsupportedMediaType, "a change must be application/json")
		case !known && o.Token != "": // open
			next.ServeHTTP(w, r)
		case !web.Shown(w, r, operator, "") && changes(r):
			// A request that changes nothing is answered all the same, probes above all.
			w.Header().Set("Retry-After", "1")
			rest.Refuse(w, http.StatusTooManyRequests, "too many requests of the operator are under way")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// operator is the one account of this listener: without a token it is whoever asks.
const operator = "operator"

func sameToken(header string, want [32]byte) bool {
	// Hashing first makes the comparison take the same time for any length.
	got := sha256.Sum256([]byte(header))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// fromOtherPage reports whether a browser says that a page of another origin asks.
// Programs do not send the header. A value that no browser is known to send is
// another page's.
func fromOtherPage(r *http.Request) bool {
	sites := r.Header.Values("Sec-Fetch-Site")
	return slices.ContainsFunc(sites, func(site string) bool { return site != "same-origin" && site != "none" })
}

// followsLink reports whether a person follows a link to the web page, from a
// runbook for instance. The browser then shows it in a window of its own; a page in
// a frame has another Sec-Fetch-Dest.
func followsLink(r *http.Request) bool {
	return r.URL.Path == "/" && r.Method == http.MethodGet &&
		r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

func changes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead
}

// ownHost accepts the listener's own address, loopback names and the further
// Hosts, with any port: a forwarded port is still the operator's.
func (o Options) ownHost(host string) bool {
	name, listen := hostOnly(host), hostOnly(o.Listen)
	same := func(h string) bool { return hostOnly(h) == name }
	if name == "localhost" || name != "" && (name == listen || slices.ContainsFunc(o.Hosts, same)) {
		return true
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	// Listening on every address, any address of the machine is its own.
	bound, err := netip.ParseAddr(listen)
	return ip.IsLoopback() || listen == "" || err == nil && bound.IsUnspecified()
}

// hostOnly gives the host of a Host header in the form in which hosts are compared.
func hostOnly(hostport string) string {
	h, _, err := net.SplitHostPort(hostport)
	if err != nil {
		h = hostport
		if n := len(h); n > 1 && h[0] == '[' && h[n-1] == ']' {
			h = h[1 : n-1]
		}
	}
	if ip, err := netip.ParseAddr(h); err == nil {
		return ip.String()
	}
	return strings.TrimSuffix(strings.ToLower(h), ".")
}

func ownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true // not a browser
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host == r.Host
}

func isJSON(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == "application/json"
}
