package submission

import (
	"bufio"
	"errors"
	"net/netip"
	"os"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/zap"

	"tlsrelay/relay/places"
)

// A balancer that speaks the PROXY protocol sends a header before all else, also before
// TLS. The header names the client. From a listed balancer it is required and believed;
// from anyone else it is a bad SMTP command.

const (
	// proxyTime is how long a balancer has for its header. It sends it at once.
	proxyTime = 5 * time.Second
	// proxyBuffer has room for a header of version 1 and for what may follow, in
	// octets: no client sends much before the greeting.
	proxyBuffer = 256
	// proxyLine is the longest header of version 1, in octets.
	proxyLine = 107
)

// introduce reads the header of a connection from a balancer, in a goroutine of its
// own, and begins the conversation with the client that it names. Until then the
// connection has a stranger's place.
func (s *Server) introduce(p *peer, implicit bool) {
	if !s.await(p) {
		p.Close()
		return
	}
	s.headers.Go(func() {
		ip, err := p.readProxy()
		s.awaited(p)
		if err != nil {
			s.refuseBalancer(p, err)
			p.Close()
			return
		}
		if !ip.IsValid() {
			ip = places.AddressOf(p.Conn) // it speaks for itself: a health check
		}
		p.ip = ip
		cause := s.places.Rename(&p.seat, ip, s.standing(ip), time.Now())
		if cause != "" {
			if cause != "gave_way" {
				s.turnAway(p, implicit, cause)
			}
			p.Close()
			return
		}
		s.converse(p, implicit)
	})
}

// errNoHeader says that a connection was closed before it sent anything: a health
// check that only connects.
var errNoHeader = errors.New("closed without a PROXY header")

// readProxy reads the header and returns the client's address. The address is not valid
// if the balancer speaks for itself. What came behind the header stays to be read.
func (p *peer) readProxy() (netip.Addr, error) {
	p.EndReads(time.Now().Add(proxyTime))
	defer p.EndReads(time.Time{})
	r := bufio.NewReaderSize(p, proxyBuffer)
	ip, err := proxyClient(r)
	if err == nil && r.Buffered() > 0 {
		rest, _ := r.Peek(r.Buffered())
		p.ahead = append([]byte(nil), rest...)
	}
	return ip, err
}

// proxyClient reads a header of either version.
func proxyClient(r *bufio.Reader) (netip.Addr, error) {
	first, err := r.Peek(1)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return netip.Addr{}, err
	case err != nil:
		return netip.Addr{}, errNoHeader
	case first[0] == proxyproto.SIGV1[0]:
		// The library wants the line in one piece. It may come in several.
		for n := 1; ; n++ {
			seen, err := r.Peek(n)
			if err != nil || n >= proxyLine || seen[n-1] == '\n' {
				break
			}
		}
	}
	h, err := proxyproto.Read(r)
	if err != nil {
		return netip.Addr{}, err
	}
	if h.Command.IsLocal() {
		return netip.Addr{}, nil
	}
	from, _, ok := h.TCPAddrs()
	if !ok {
		return netip.Addr{}, proxyproto.ErrUnsupportedAddressFamilyAndProtocol
	}
	ip, ok := netip.AddrFromSlice(from.IP)
	if !ok {
		return netip.Addr{}, proxyproto.ErrInvalidAddress
	}
	return ip.Unmap(), nil
}

// refuseBalancer counts a balancer's connection without a good header. It logs that once
// a minute, because the balancer or the relay is set up wrongly.
func (s *Server) refuseBalancer(p *peer, err error) {
	if parting, _ := p.ending(); parting != "" {
		return // it has given way, and was counted then
	}
	s.metrics.rejected.WithLabelValues("proxy_header").Inc()
	if errors.Is(err, errNoHeader) {
		return
	}
	if n, due := s.seldom.Due("proxy_header", time.Now()); due {
		s.log.Warn("a connection of submission.proxy_protocol has no good PROXY header, and was closed",
			zap.Stringer("balancer", places.AddressOf(p.Conn)), zap.Int("connections", n), zap.Error(err))
	}
}

// await notes a connection whose header is awaited. It returns false when the server is
// stopping.
func (s *Server) await(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.unnamed[p] = struct{}{}
	return true
}

func (s *Server) awaited(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.unnamed, p)
}
