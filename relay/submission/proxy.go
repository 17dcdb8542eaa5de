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

// A balancer that speaks the PROXY protocol puts a header before everything else, TLS
// included, which names the client. From a listed balancer it is required and
// believed; from anywhere else it is what it is: no SMTP.

const (
	// proxyTime is how long a balancer has for its header, which it sends at once.
	proxyTime = 5 * time.Second
	// proxyBuffer holds a header of version 1, and more of what follows than the
	// client can have sent.
	proxyBuffer = 256
	// proxyLine is the longest header of version 1.
	proxyLine = 107
)

// introduce reads the header of a connection from a balancer, beside the loop that
// accepts, and goes on with the client that it names. Until then the client has a
// stranger's place.
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

// errNoHeader is the error of a connection that was closed before it said anything:
// a health check that only connects.
var errNoHeader = errors.New("closed without a PROXY header")

// readProxy reads the header and gives the client's address; it is not valid where the
// balancer speaks for itself. What came behind the header is read next.
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
		// The library wants a line in one piece. It may come in several, and as slowly
		// as its time allows.
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

// refuseBalancer counts a connection of a balancer without a header, and logs it from
// time to time: either one of the two is set up wrongly.
func (s *Server) refuseBalancer(p *peer, err error) {
	if words, _ := p.ending(); words != "" {
		return // it gave way, and was counted
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

// await notes a connection whose header is awaited; false: the server is stopping.
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
