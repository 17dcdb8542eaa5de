package web

import (
	"bytes"
	"context"
	"crypto/tls"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay/places"
)

// Options are the bounds of a listener.
type Options struct {
	Name   string      // of the listener, in metrics: a closed set
	Listen string      // the address to bind
	TLS    *tls.Config // nil: plain HTTP

	MaxConnections        int           // open at a time; strangers have a fifth of them; 0: 2,000
	MaxStrangersPerIP     int           // of one address, or one /64 of IPv6; 0: a tenth of MaxConnections
	AuthFailuresPerMinute int           // per source; beyond it wrong keys are answered slowly; 0: 30
	WriteTime             time.Duration // for an answer, from the end of the request's header; 0: 3 minutes

	// Holds says whether a key that was right still is; nil: keys do not end. Its
	// error is account.ErrDenied where the key has ended; others end nothing.
	Holds func(ctx context.Context, secret string) error

	strangerTime, slowAnswer, busyTime, lookEvery time.Duration // 0: as below
	maxRequests                                   int
}

const (
	headerTime   = 10 * time.Second
	requestTime  = time.Minute
	idleTime     = 2 * time.Minute
	strangerTime = 30 * time.Second
	busyTime     = 5 * time.Second
	shownWithin  = time.Second // from what a stranger sends to the key in it
	flushTime    = 100 * time.Millisecond
	lingerTime   = 500 * time.Millisecond
	slowAnswer   = 3 * time.Second
	lookEvery    = 500 * time.Millisecond // after keys that have ended
	drainTime    = 5 * time.Second        // for requests under way, at the end

	maxHeader = 64 << 10 // octets
	// maxRequests is how many requests of one account are under way at a time: each
	// may hold a body of a megabyte, or an answer that nobody reads.
	maxRequests = 100
)

func (o Options) withDefaults() Options {
	orDefault(&o.MaxConnections, 2000)
	orDefault(&o.MaxStrangersPerIP, max(1, o.MaxConnections/10))
	orDefault(&o.AuthFailuresPerMinute, 30)
	orDefault(&o.WriteTime, 3*time.Minute)
	orDefault(&o.strangerTime, strangerTime)
	orDefault(&o.slowAnswer, slowAnswer)
	orDefault(&o.busyTime, busyTime)
	orDefault(&o.lookEvery, lookEvery)
	orDefault(&o.maxRequests, maxRequests)
	return o
}

func orDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Server is one bound listener. Make it with [Listen], serve with [Server.Run].
type Server struct {
	o        Options
	log      *zap.Logger
	metrics  *metrics
	listener net.Listener
	http     http.Server

	places   *places.Pool
	failures *places.Failures
	seldom   places.Seldom

	mu    sync.Mutex
	under map[account.ID]int // requests that are under way
}

// Listen binds a listener, so that callers queue up from now on. reg may be nil.
func Listen(o Options, h http.Handler, log *zap.Logger, reg prometheus.Registerer) (*Server, error) {
	o = o.withDefaults()
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, err
	}
	s := &Server{
		o: o, log: log, under: make(map[account.ID]int),
		places: places.New(places.Limits{
			Total: o.MaxConnections, StrangersPerIP: o.MaxStrangersPerIP, ShowTime: o.strangerTime, OwnGoes: true,
		}),
		failures: places.NewFailures(o.AuthFailuresPerMinute, o.slowAnswer),
	}
	s.metrics = newMetrics(s, reg)
	s.listener = door{l, s}
	if o.TLS != nil {
		s.listener = tls.NewListener(s.listener, o.TLS)
	}
	s.http = http.Server{
		Handler: s.handler(h), ReadHeaderTimeout: headerTime, ReadTimeout: requestTime, WriteTimeout: o.WriteTime,
		IdleTimeout: idleTime, MaxHeaderBytes: maxHeader, ErrorLog: stdlog.New(remarks{log}, "", 0),
		ConnContext: remember, ConnState: noteState, Protocols: new(http.Protocols),
		DisableGeneralOptionsHandler: true, // its answers to OPTIONS * would come past handler
	}
	s.http.Protocols.SetHTTP1(true)
	return s, nil
}

// Addr gives the bound address.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close releases the address of a server that was never run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx ends, and then lets requests under way finish for drainTime.
func (s *Server) Run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.listener) }()
	look := time.NewTicker(s.o.lookEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			s.endKeys(ctx)
			continue
		case err := <-ended:
			return err
		case <-ctx.Done():
		}
		break
	}
	s.failures.Close()
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if s.http.Shutdown(bound) != nil {
		s.http.Close()
	}
	<-ended
	return nil
}

// door accepts connections, and gives those on that have a place. Trouble such as too
// many open files is net/http's to wait out.
type door struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener.
func (d door) Accept() (net.Conn, error) {
	for {
		raw, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if c := d.s.welcome(raw); c != nil {
			return c, nil
		}
	}
}

// welcome gives a connection a stranger's place; nil: there is none.
func (s *Server) welcome(raw net.Conn) *conn {
	c := &conn{Conn: raw, s: s, ip: places.AddressOf(raw), came: time.Now()}
	s.metrics.open.Inc()
	if cause := s.places.Arrive(&c.seat, c, c.ip, "", c.came); cause != "" {
		s.shortOf(places.Loss{Cause: cause, IP: c.ip})
		c.Close()
		return nil
	}
	return c
}

// shortOf counts a connection or request for which there is no place, or no longer,
// and logs that from time to time.
func (s *Server) shortOf(l places.Loss) {
	s.metrics.rejected.WithLabelValues(l.Cause).Inc()
	if n, due := s.seldom.Due(l.Cause, time.Now()); due {
		s.log.Warn("short of places for HTTP connections", l.Fields(n)...)
	}
}

// remarks takes what net/http has to say into the log, in the log's form: what
// strangers do to their handshakes is nobody's trouble, the rest may be ours.
type remarks struct{ log *zap.Logger }

func (r remarks) Write(b []byte) (int, error) {
	level := zap.WarnLevel
	if bytes.HasPrefix(b, []byte("http: TLS handshake error")) {
		level = zap.DebugLevel
	}
	r.log.Log(level, "http server", zap.ByteString("remark", bytes.TrimSpace(b)))
	return len(b), nil
}
