package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/pprof"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

// Options say where the listener is, for the check of Host, and its token.
type Options struct {
	Listen string   // as bound
	Token  string   // "" for none
	Hosts  []string // further names by which it may be asked
}

// Prober asks the delivery engine what a delivery would come to.
type Prober interface {
	Probe(ctx context.Context, destination string, s policy.Sender) deliver.Report
}

// Deps are what the operator looks at and acts on.
type Deps struct {
	Accounts  account.Store
	Overrides account.OverrideStore
	Prober    Prober
	Store     relay.Operator
	Queue     Queue
	Blocks    Blocks
	Webhooks  func() any                           // state of every endpoint with something waiting
	Lanes     func(limit int) (some any, more int) // state of lanes in memory
	Ready     func() Readiness
	Metrics   prometheus.Gatherer
	Log       *zap.Logger
}

type server struct {
	Deps
	told   told
	checks chan struct{} // a slot of each check under way
}

// New makes the handler of the operator's listener.
func New(o Options, d Deps) http.Handler {
	s := &server{Deps: d, checks: make(chan struct{}, maxChecks)}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.Metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", s.healthy)
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", s.page)

	for pattern, call := range map[string]call{
		"GET /admin/v1/accounts":                          s.listAccounts,
		"POST /admin/v1/accounts":                         s.createAccount,
		"GET /admin/v1/accounts/{account}":                s.showAccount,
		"PATCH /admin/v1/accounts/{account}":              s.changeAccount,
		"DELETE /admin/v1/accounts/{account}":             s.deleteAccount,
		"GET /admin/v1/accounts/{account}/keys":           s.listKeys,
		"POST /admin/v1/accounts/{account}/keys":          s.createKey,
		"DELETE /admin/v1/keys/{key}":                     s.revokeKey,
		"GET /admin/v1/accounts/{account}/blocks":         s.listBlocks,
		"POST /admin/v1/accounts/{account}/blocks/remove": s.removeBlocks,

		"POST /admin/v1/check": s.check,

		"GET /admin/v1/queue":          s.queueOverview,
		"GET /admin/v1/queue/messages": s.queueMessages,
		"GET /admin/v1/messages/{id}":  s.showMessage,
		"POST /admin/v1/queue/retry":   s.act(relay.ActRetry),
		"POST /admin/v1/queue/hold":    s.act(relay.ActHold),
		"POST /admin/v1/queue/release": s.act(relay.ActRelease),
		"POST /admin/v1/queue/drop":    s.act(relay.ActDrop),

		"GET /admin/v1/guard":          s.showGuard,
		"POST /admin/v1/guard/release": s.releaseGuard,

		"GET /admin/v1/webhooks": s.webhooks,
		"GET /admin/v1/lanes":    s.lanes,
	} {
		mux.HandleFunc(pattern, s.serve(call))
	}
	return guard(o, mux)
}

// call answers one JSON request: a value to encode, or an error. A nil value
// is 204.
type call func(r *http.Request) (any, error)

// problem is an error whose text is meant for the operator.
type problem struct {
	status int
	text   string
}

func (p problem) Error() string { return p.text }

func badRequest(text string) error { return problem{http.StatusBadRequest, text} }

// serve runs a call and writes its answer. Errors that are not problems are
// logged and answered without their text.
func (s *server) serve(c call) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.Log.Error("a call of the operator's listener panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
				refuse(w, http.StatusInternalServerError, "internal error; the log says more")
			}
		}()
		v, err := c(r)
		if some, ok := v.(part); ok && err == nil {
			some.tell(w, r)
			v = some.rows
		}
		var p problem
		switch {
		case err == nil && v == nil:
			w.WriteHeader(http.StatusNoContent)
		case err == nil:
			reply(w, http.StatusOK, v)
		case errors.As(err, &p):
			refuse(w, p.status, p.text)
		case errors.Is(err, account.ErrNotFound), errors.Is(err, relay.ErrNotFound):
			refuse(w, http.StatusNotFound, "not found")
		case errors.Is(err, account.ErrExists):
			refuse(w, http.StatusConflict, "exists already")
		case errors.Is(err, account.ErrTooMany):
			refuse(w, http.StatusConflict, "there are as many already as there may be")
		default:
			s.Log.Error("a call of the operator's listener failed", zap.String("path", r.URL.Path), zap.Error(err))
			refuse(w, http.StatusInternalServerError, "internal error; the log says more")
		}
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(v) // a client that has gone away is nobody to tell
}

func refuse(w http.ResponseWriter, status int, text string) {
	reply(w, status, map[string]string{"error": text})
}

// read decodes a request's body, which is small and has no unknown keys.
func read(r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return badRequest("a JSON object is needed")
		}
		return badRequest("bad request: " + err.Error())
	}
	return nil
}

func (s *server) webhooks(*http.Request) (any, error) { return s.Deps.Webhooks(), nil }

func (s *server) lanes(r *http.Request) (any, error) {
	limit, err := limitOf(r.URL.Query())
	if err != nil {
		return nil, err
	}
	some, more := s.Deps.Lanes(limit)
	return part{rows: some, more: more}, nil
}
