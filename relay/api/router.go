package api

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"tlsrelay/policy/account"
)

// call answers one authenticated request: a value to encode, or an error. A
// nil value goes with 204.
type call func(*request) (any, error)

// route is one line of the table in routes.go.
type route struct {
	method  string
	path    string
	scope   account.Scope // what the key must hold; anyKey: nothing; open: no key needed
	success int
	call    call
}

// Special values of route.scope.
const (
	anyKey account.Scope = ""
	open   account.Scope = "-"
)

// resource is all that can be done at one path.
type resource struct {
	path  string // the pattern
	calls map[string]route
}

// allow is the value of the Allow header.
func (r resource) allow() string {
	methods := []string{http.MethodOptions}
	for m := range r.calls {
		methods = append(methods, m)
	}
	if _, ok := r.calls[http.MethodGet]; ok {
		methods = append(methods, http.MethodHead)
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// find gives the route of a method; HEAD falls under GET (contract §1.4).
func (r resource) find(method string) (route, bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	to, ok := r.calls[method]
	return to, ok
}

// newMux registers one handler per path. Methods stay out of the patterns:
// ServeMux would answer 405 in plain text.
func (s *server) newMux(routes []route) *http.ServeMux {
	resources := make(map[string]resource)
	for _, to := range routes {
		if _, ok := resources[to.path]; !ok {
			resources[to.path] = resource{to.path, make(map[string]route)}
		}
		resources[to.path].calls[to.method] = to
	}
	mux := http.NewServeMux()
	for pattern, res := range resources {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, res) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.serve(w, r, resource{path: "none"})
	})
	return mux
}

// withCleanPath gives the request with its path cleaned, as ServeMux would
// redirect it to: real clients send double and trailing slashes, and lose
// their body or their key on a redirect (contract §3.3). It works on the
// escaped path, so that an escaped slash stays part of its segment.
func withCleanPath(r *http.Request) *http.Request {
	escaped := r.URL.EscapedPath()
	clean := path.Clean("/" + escaped)
	if clean == escaped {
		return r
	}
	plain, err := url.PathUnescape(clean)
	if err != nil {
		return r
	}
	u := *r.URL
	u.Path, u.RawPath = plain, clean
	c := *r
	c.URL = &u
	return &c
}
