package admin

import (
	"net/http"
	"net/http/pprof"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"tlsrelay/relay"
)

// Options say where the listener is, for the check of Host, and its token.
type Options struct {
	Listen string   // as bound
	Token  string   // "" for none
	Hosts  []string // further names by which it may be asked
}

// Deps are what the operator looks at and acts on.
type Deps struct {
	Calls   http.Handler // of /admin/v1
	Store   relay.Operator
	Ready   func() Readiness
	Metrics prometheus.Gatherer
	Log     *zap.Logger
}

type server struct {
	Deps
	told told
}

// New makes the handler of the operator's listener.
func New(o Options, d Deps) http.Handler {
	s := &server{Deps: d}
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
	mux.Handle("/admin/", d.Calls)
	return onlyOperator(o, mux)
}
