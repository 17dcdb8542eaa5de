package submission

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
)

// listener is one bound socket.
type listener struct {
	net.Listener
	implicit bool // TLS from the first octet
}

// acceptLoop accepts until l is closed. Trouble such as too many open files
// passes by itself, so it is waited out.
func (s *Server) acceptLoop(ctx context.Context, l listener) error {
	var delay time.Duration
	for {
		raw, err := l.Accept()
		switch {
		case err == nil:
			delay = 0
			s.welcome(raw, l.implicit)
		case ctx.Err() != nil, errors.Is(err, net.ErrClosed):
			return nil
		default:
			delay = min(max(5*time.Millisecond, 2*delay), time.Second)
			s.log.Warn("accepting a submission connection failed", zap.Error(err), zap.Duration("retry_in", delay))
			select {
			case <-ctx.Done():
			case <-time.After(delay):
			}
		}
	}
}

// welcome starts a conversation, or turns the client away.
func (s *Server) welcome(raw net.Conn, implicit bool) {
	ip := addressOf(raw)
	if cause := s.places.take(ip); cause != "" {
		s.metrics.rejected.WithLabelValues(cause).Inc()
		s.turnAway(raw, implicit)
		return
	}
	s.metrics.opened(implicit)
	p := &peer{Conn: raw, ip: ip, idle: s.o.IdleTimeout, left: func() {
		s.places.leave(ip)
		s.metrics.current.Dec()
	}}
	c := newConn(s, p, implicit)
	if !s.adopt(c) {
		p.Close()
	}
}

// turnAway says 421 (RFC 5321 §3.8) where it can be read: not before a TLS
// handshake. The few octets fit the socket's buffer, so nobody can stall it.
func (s *Server) turnAway(raw net.Conn, implicit bool) {
	if !implicit {
		raw.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = raw.Write([]byte("421 4.3.2 " + s.o.Hostname + " Too many connections, try again later\r\n"))
	}
	raw.Close()
}

func addressOf(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}

// places counts connections against the caps, those of one source together.
type places struct {
	total, perIP int

	mu       sync.Mutex
	taken    int
	bySource map[netip.Prefix]int
}

// take gives a place, or says by which cap there is none.
func (p *places) take(ip netip.Addr) (cause string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.taken >= p.total:
		return "max_connections"
	case p.perIP > 0 && p.bySource[source(ip)] >= p.perIP:
		return "max_connections_per_ip"
	}
	p.taken++
	if p.perIP > 0 {
		if p.bySource == nil {
			p.bySource = make(map[netip.Prefix]int)
		}
		p.bySource[source(ip)]++
	}
	return ""
}

func (p *places) leave(ip netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.bySource == nil {
		return
	}
	if p.bySource[source(ip)]--; p.bySource[source(ip)] <= 0 {
		delete(p.bySource, source(ip))
	}
}

// handoff is the net.Listener that go-smtp accepts from: both fresh
// connections and those that come out of STARTTLS.
type handoff struct {
	conns chan *conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff() *handoff {
	return &handoff{conns: make(chan *conn), done: make(chan struct{})}
}

// give reports whether c found a taker. The channel has no buffer, so that
// nothing given is forgotten at the end.
func (h *handoff) give(c *conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.done:
		return false
	}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *handoff) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *handoff) Addr() net.Addr { return handoffAddr{} }

type handoffAddr struct{}

func (handoffAddr) Network() string { return "tcp" }
func (handoffAddr) String() string  { return "submission" }
