package rest

import (
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"tlsrelay/policy/account"
)

// Call answers one admitted request: a value to encode, or an error. A nil value goes
// with 204.
type Call func(*Request) (any, error)

// Route is one call: where it is, who may make it, and who answers.
type Route struct {
	Method  string
	Path    string
	Scope   account.Scope // what the key must hold, or one of the values below
	Success int           // status code of success; a success without a value is 204
	Call    Call
	// Params are the names of all parameters that an operator's call takes, in its query
	// or its body. Those of the public API are not listed: unknown ones are ignored there.
	Params []string
}

// Special values of Route.Scope.
const (
	AnyKey   account.Scope = ""  // whoever has a key
	Open     account.Scope = "-" // everybody
	Operator account.Scope = "operator"
)

// resource is all that can be done at one path.
type resource struct {
	path  string // the pattern
	calls map[string]Route
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

// find gives the route of a method; HEAD falls under GET.
func (r resource) find(method string) (Route, bool) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	to, ok := r.calls[method]
	return to, ok
}

// newMux registers one handler per path. Methods stay out of the patterns:
// ServeMux would answer 405 in plain text.
func (s Surface) newMux(routes []Route) *http.ServeMux {
	resources := make(map[string]resource)
	for _, to := range routes {
		if _, ok := resources[to.Path]; !ok {
			resources[to.Path] = resource{to.Path, make(map[string]Route)}
		}
		resources[to.Path].calls[to.Method] = to
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
// their body or their key on a redirect. It works on the escaped path, so that
// an escaped slash stays part of its segment.
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
