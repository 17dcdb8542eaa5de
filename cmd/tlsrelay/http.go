package main

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// httpServer is one bound HTTP listener.
type httpServer struct {
	listener net.Listener
	server   *http.Server
}

func listenHTTP(addr string, config *tls.Config, h http.Handler, log *zap.Logger) (*httpServer, error) {
	remarks, err := zap.NewStdLogAt(log, zap.DebugLevel) // on what strangers do
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return &httpServer{l, &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10, ErrorLog: remarks,
	}}, nil
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
