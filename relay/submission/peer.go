package submission

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// peer is the socket of one client, below TLS. Here, and not above TLS, reads
// get their deadlines: one record may take many reads to arrive.
type peer struct {
	net.Conn
	ip   netip.Addr
	idle time.Duration
	left func() // gives the place back, once

	failures int // logins that failed; of the goroutine that answers

	// Of the goroutine that reads: what is awaited has come in part, and no reply
	// is due before the rest.
	eager bool
	acks  quickAck

	mu          sync.Mutex
	until       time.Time // fixed end of all reads; zero: each has idle from its start
	interrupted bool
	closed      sync.Once
}

// bound fixes when reads end, whatever trickles in until then. A zero time
// gives each read its own idle time again: slow but steady content may take
// as long as it likes.
func (p *peer) bound(until time.Time) {
	p.mu.Lock()
	p.until = until
	p.mu.Unlock()
}

// Read implements net.Conn.
func (p *peer) Read(b []byte) (int, error) {
	if err := p.arm(); err != nil {
		return 0, err
	}
	if p.eager {
		p.acks.now(p.Conn)
	}
	return p.Conn.Read(b)
}

func (p *peer) arm() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.interrupted {
		return os.ErrDeadlineExceeded
	}
	until := p.until
	if until.IsZero() {
		until = time.Now().Add(p.idle)
	}
	return p.Conn.SetReadDeadline(until)
}

// interrupt ends the read that is waiting, and all later ones.
func (p *peer) interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.interrupted = true
	_ = p.Conn.SetReadDeadline(time.Unix(1, 0))
}

// Write implements net.Conn. A client that does not read its replies is
// given up after the idle time.
func (p *peer) Write(b []byte) (int, error) {
	if err := p.Conn.SetWriteDeadline(time.Now().Add(p.idle)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// Close closes the socket, also under the hands of another goroutine.
func (p *peer) Close() error {
	err := net.ErrClosed
	p.closed.Do(func() {
		err = p.Conn.Close()
		p.left()
	})
	return err
}
