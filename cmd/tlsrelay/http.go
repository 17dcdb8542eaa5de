package main

import "tlsrelay/relay/web"

// httpServer is one bound HTTP listener.
type httpServer struct{ *web.Server }

func (s *httpServer) addr() string { return s.Addr().String() }
