package submission

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay/places"
	"tlsrelay/relay/submission/wire"
)

// listener is one bound socket.
type listener struct {
	net.Listener
	implicit bool // TLS from the first octet
}

// acceptLoop accepts connections until l is closed. After an error such as too many
// open files it waits and tries again.
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
	p := &peer{Conn: raw, srv: s, ip: places.AddressOf(raw), idle: s.o.IdleTimeout}
	behind := trusts(s.o.ProxyProtocol, p.ip)
	if behind {
		p.ip = netip.Addr{}
	}
	cause := s.places.Arrive(&p.seat, p, p.ip, s.standing(p.ip), time.Now())
	if cause != "" {
		s.turnAway(p, implicit, cause)
		raw.Close()
		return
	}
	s.metrics.opened(implicit)
	if behind {
		s.introduce(p, implicit)
		return
	}
	s.converse(p, implicit)
}

// converse begins a conversation with a client that has a place.
func (s *Server) converse(p *peer, implicit bool) {
	if !s.adopt(wire.New(&s.wire, p, implicit)) {
		p.Close()
	}
}

// standing is the account of a client before its login: a trusted address has the
// parent account, any other none, "".
func (s *Server) standing(ip netip.Addr) account.ID {
	if trusts(s.o.Trusted, ip) {
		return account.Parent
	}
	return ""
}

// turnAway replies 421 (RFC 5321 §3.8), unless the client waits for a TLS handshake. The
// reply fits the socket's buffer, so no client can stall it.
func (s *Server) turnAway(p *peer, implicit bool, cause string) {
	s.shortOf(places.Loss{Cause: cause, IP: p.ip})
	if !implicit {
		p.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = p.Conn.Write([]byte(s.partingReply(cause) + "\r\n"))
	}
}

// partingReply tells a client why its conversation ends, by the cause that rejected_total
// counts.
func (s *Server) partingReply(cause string) string {
	status, text := "4.3.2", "Too many connections, try again later"
	switch cause {
	case "max_strangers_per_ip":
		status, text = "4.7.0", "Too many connections from your address that have not logged in, try again later"
	case "gave_way":
		status, text = "4.3.2", "Too many connections that have not logged in, try again later"
	case "login_timeout":
		status, text = "4.4.2", "No login in time, closing connection"
	case "commands_before_login":
		status, text = "4.7.0", "Too many commands before a login, closing connection"
	case "key_ended":
		status, text = "4.7.0", "The API key of this session is no longer valid, closing connection"
	}
	return "421 " + status + " " + s.o.Hostname + " " + text
}

// shortOf counts a connection that gets no place or has lost it, and logs that once a
// minute.
func (s *Server) shortOf(l places.Loss) {
	s.metrics.rejected.WithLabelValues(l.Cause).Inc()
	if n, due := s.seldom.Due(l.Cause, time.Now()); due {
		s.log.Warn("submission is short of places", l.Fields(n)...)
	}
}

// atBound counts that an account is at one of its bounds, and logs that once a minute.
func (s *Server) atBound(bound string, who account.ID) {
	s.metrics.bounded.WithLabelValues(bound).Inc()
	if n, due := s.seldom.Due(bound+" "+string(who), time.Now()); due {
		s.log.Warn("an account is at one of its bounds: it is answered 452", zap.String("bound", bound),
			zap.String("account", string(who)), zap.Int("replies", n))
	}
}

// handoff is the net.Listener that go-smtp accepts from: new connections, and those
// that STARTTLS has made.
type handoff struct {
	conns chan *wire.Conn
	done  chan struct{}
	once  sync.Once
}

func newHandoff() *handoff {
	return &handoff{conns: make(chan *wire.Conn), done: make(chan struct{})}
}

// give hands c to go-smtp; false: go-smtp accepts no more. The channel has no buffer,
// so that no connection stays in it at the end.
func (h *handoff) give(c *wire.Conn) bool {
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
