package rest

import (
	"crypto/rand"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/relay/web"
)

// requestID is the header with the id of a request, which the log has too.
const requestID = "X-Request-Id"

// Surface answers the requests of one listener.
type Surface struct {
	// Admit says who asks and on whose behalf, in the fields of the request, and whether
	// they may. Calls of an Open route are made without it.
	Admit func(r *Request, to Route) error
	// Known gives the fault that an error of a store stands for; nil: the error is the
	// relay's own trouble, and its text is for the log only.
	Known func(err error) *Fault
	// AnyOrigin lets pages of any origin ask (CORS): a key is sent by a program on
	// purpose, never by a browser of its own accord.
	AnyOrigin bool

	Now      func() time.Time
	Log      *zap.Logger
	Requests *prometheus.CounterVec // by route and code
	Bounds   *prometheus.CounterVec // refusals by bound
}

// Handler serves the routes.
func (s Surface) Handler(routes []Route) http.Handler {
	mux := s.newMux(routes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set(requestID, rand.Text())
		if s.AnyOrigin {
			h.Set("Access-Control-Allow-Origin", "*")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, On-behalf-of")
			h.Set("Access-Control-Expose-Headers", "Link, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id")
		}
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store") // keys and settings stay out of caches
		mux.ServeHTTP(w, withCleanPath(r))
	})
}

// serve answers a request to one resource. It writes nothing before the outcome is
// known, so that a panic still gets its envelope.
func (s Surface) serve(w http.ResponseWriter, r *http.Request, res resource) {
	status := http.StatusInternalServerError
	defer func() { s.Requests.WithLabelValues(res.path, strconv.Itoa(status)).Inc() }()
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		if p == http.ErrAbortHandler {
			panic(p)
		}
		s.Log.Error("a call of the API panicked", zap.String("route", res.path),
			zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		status = s.fail(w, r, FaultOf(http.StatusInternalServerError))
	}()

	v, success, err := s.answer(w, r, res)
	switch {
	case err != nil:
		f, ours := s.faultOf(err)
		if ours {
			level := zap.ErrorLevel
			if r.Context().Err() != nil {
				level = zap.DebugLevel // the client went away, which is no trouble of ours
			}
			s.Log.Log(level, "a call of the API failed", zap.String("route", res.path), zap.String("method", r.Method),
				zap.String("request_id", w.Header().Get(requestID)), zap.Error(err))
		}
		status = s.fail(w, r, f)
	case v == nil:
		status = http.StatusNoContent
		w.WriteHeader(status)
	default:
		status = success
		write(w, status, "application/json", encodeAt(r.URL.Path, v))
	}
}

// answer makes the checks in their order and then the call.
func (s Surface) answer(w http.ResponseWriter, r *http.Request, res resource) (v any, success int, err error) {
	if len(res.calls) == 0 {
		return nil, 0, FaultOf(http.StatusNotFound)
	}
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", res.allow())
		if s.AnyOrigin {
			w.Header().Set("Access-Control-Allow-Methods", res.allow())
			w.Header().Set("Access-Control-Max-Age", "600")
		}
		return nil, 0, nil
	}
	to, ok := res.find(r.Method)
	if !ok {
		w.Header().Set("Allow", res.allow())
		return nil, 0, FaultOf(http.StatusMethodNotAllowed)
	}
	req := &Request{Request: r, W: w, Now: s.Now, id: w.Header().Get(requestID), route: to, log: s.Log}
	if to.Scope != Open {
		if err := s.Admit(req, to); err != nil {
			return nil, 0, err
		}
	}
	if err := req.onlyKnown(); err != nil {
		return nil, 0, err
	}
	v, err = to.Call(req)
	return v, to.Success, err
}

// fail writes a fault in the dialect of the path.
func (s Surface) fail(w http.ResponseWriter, r *http.Request, f *Fault) int {
	if f.bound != "" {
		s.Bounds.WithLabelValues(f.bound).Inc()
	}
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110 §11.6.1
		web.Denied(w, r)
	}
	contentType, body := f.encode(r.URL.Path, w.Header().Get(requestID))
	write(w, f.status, contentType, body)
	return f.status
}
