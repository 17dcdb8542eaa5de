package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// guard lets a request through to next only if it comes from somebody who
// could be the operator (interface §6). A listener on loopback is within
// reach of every web page the operator's browser shows, so a token alone is
// not enough and its absence must not be fatal: the Host must be ours (which
// stops DNS rebinding), and a change must come as JSON without a foreign
// Origin (which stops forged forms).
func guard(listen, token string, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		open := r.URL.Path == "/healthz" || r.URL.Path == "/readyz"
		switch {
		case !ownHost(r.Host, listen):
			refuse(w, http.StatusMisdirectedRequest, "this Host is not the operator's listener")
		case !open && token != "" && !sameToken(r.Header.Get("Authorization"), want):
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "a token is needed")
		case changes(r) && !ownOrigin(r):
			refuse(w, http.StatusForbidden, "a change from another origin")
		case strings.HasPrefix(r.URL.Path, "/debug/") && r.Header.Get("Sec-Fetch-Site") == "cross-site":
			// Reading changes nothing, but a page elsewhere could keep the profiler on.
			refuse(w, http.StatusForbidden, "a profile for another site")
		case changes(r) && !isJSON(r):
			refuse(w, http.StatusUnsupportedMediaType, "a change must be application/json")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func sameToken(header string, want [32]byte) bool {
	// Hashing first makes the comparison take the same time for any length.
	got := sha256.Sum256([]byte(header))
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

func changes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead
}

// ownHost accepts the listener's own address and loopback names, with any
// port: a forwarded port is still the operator's.
func ownHost(host, listen string) bool {
	name := hostOnly(host)
	if name == "localhost" || name == hostOnly(listen) && name != "" {
		return true
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	// Listening on every address, any address of the machine is its own.
	bound, err := netip.ParseAddr(hostOnly(listen))
	return ip.IsLoopback() || hostOnly(listen) == "" || err == nil && bound.IsUnspecified()
}

func hostOnly(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		return strings.ToLower(h)
	}
	return strings.ToLower(strings.Trim(hostport, "[]"))
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
