package main

import (
	"bytes"
	"context"
	"crypto/tls"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/net/netutil"
)

// httpServer is one bound HTTP listener.
type httpServer struct {
	listener net.Listener
	server   *http.Server
}

// maxHTTP is how many connections one listener has at a time: those beyond wait,
// and leave file descriptors to mail.
const maxHTTP = 2000

// apiWriteLimit is how long an answer of the public API may take, a check of a
// domain with all its hosts included.
const apiWriteLimit = 3 * time.Minute

func listenHTTP(addr string, config *tls.Config, h http.Handler, log *zap.Logger) (*httpServer, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	l = netutil.LimitListener(l, maxHTTP)
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return &httpServer{l, &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: stdlog.New(remarks{log}, "", 0),
	}}, nil
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

// httpDrain is how long requests in progress may still take.
const httpDrain = 5 * time.Second

func (s *httpServer) run(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- s.server.Serve(s.listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpDrain)
	defer cancel()
	if s.server.Shutdown(bound) != nil {
		s.server.Close()
	}
	<-ended
	return nil
}

func (s *httpServer) addr() string { return s.listener.Addr().String() }
