package api

import (
	"crypto/rand"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"

	"tlsrelay/relay/web"
)

// The header names of answers.
const (
	headerRequestID = "X-Request-Id"
	ourPrefix       = "/relay/" // paths that speak problem details
)

// ServeHTTP answers one request.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set(headerRequestID, rand.Text())
	// A key is sent by a program on purpose, never by a browser of its own
	// accord, so any origin may ask.
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, On-behalf-of")
	h.Set("Access-Control-Expose-Headers", "Link, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store") // keys and settings stay out of caches
	s.mux.ServeHTTP(w, withCleanPath(r))
}

// serve answers a request to one resource: nothing is written before the
// outcome is known, so that a panic still gets its envelope.
func (s *server) serve(w http.ResponseWriter, r *http.Request, res resource) {
	status := http.StatusInternalServerError
	defer func() { s.requests.WithLabelValues(res.path, strconv.Itoa(status)).Inc() }()
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
		status = s.refuse(w, r, refused(http.StatusInternalServerError))
	}()

	v, success, err := s.answer(w, r, res)
	switch {
	case err != nil:
		f, ours := asFault(err)
		if ours {
			level := zap.ErrorLevel
			if r.Context().Err() != nil {
				level = zap.DebugLevel // the client went away, which is no trouble of ours
			}
			s.Log.Log(level, "a call of the API failed", zap.String("route", res.path), zap.String("method", r.Method),
				zap.String("request_id", w.Header().Get(headerRequestID)), zap.Error(err))
		}
		status = s.refuse(w, r, f)
	case v == nil:
		status = http.StatusNoContent
		w.WriteHeader(status)
	default:
		status = success
		write(w, status, "application/json", encode(v))
	}
}

// answer goes through the checks in the order of contract §2.3 and makes the
// call.
func (s *server) answer(w http.ResponseWriter, r *http.Request, res resource) (v any, success int, err error) {
	if len(res.calls) == 0 {
		return nil, 0, refused(http.StatusNotFound)
	}
	if r.Method == http.MethodOptions {
		w.Header().Set("Allow", res.allow())
		w.Header().Set("Access-Control-Allow-Methods", res.allow())
		w.Header().Set("Access-Control-Max-Age", "600")
		return nil, 0, nil
	}
	to, ok := res.find(r.Method)
	if !ok {
		w.Header().Set("Allow", res.allow())
		return nil, 0, refused(http.StatusMethodNotAllowed)
	}
	req := &request{Request: r, w: w, id: w.Header().Get(headerRequestID)}
	if to.scope != open {
		if err := s.admit(req, to); err != nil {
			return nil, 0, err
		}
	}
	v, err = to.call(req)
	return v, to.success, err
}

// refuse writes a fault in the dialect of the path.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, f *fault) int {
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110 §11.6.1
		web.Denied(w, r)
	}
	if strings.HasPrefix(r.URL.Path, ourPrefix) {
		write(w, f.status, "application/problem+json", encode(f.problem(w.Header().Get(headerRequestID))))
	} else {
		write(w, f.status, "application/json", f.body)
	}
	return f.status
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // a client that has gone away is nobody to tell
}

func newRequestCounter(reg prometheus.Registerer) *prometheus.CounterVec {
	return promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "tlsrelay_api_requests_total",
		Help: "Requests to the public API, by route and status code.",
	}, []string{"route", "code"})
}
