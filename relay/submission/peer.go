package submission

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tlsrelay/relay/places"
)

// peer is the socket of one client, below TLS. Here, and not above TLS, reads
// get their deadlines: one record may take many reads to arrive.
type peer struct {
	net.Conn
	srv  *Server
	ip   netip.Addr // of the client; not known before a balancer's PROXY header
	idle time.Duration
	seat places.Seat

	left  func()            // gives the place back, once
	gives func(places.Loss) // ends it, for another one's place

	ahead    []byte // what was read behind a PROXY header
	failures int    // logins that failed; of the goroutine that answers
	commands int    // before a login; of that goroutine, too

	resting atomic.Bool

	// Of the goroutine that reads: what is awaited has come in part, and no reply
	// is due before the rest.
	eager bool
	acks  quickAck

	mu          sync.Mutex
	until       time.Time // fixed end of all reads; zero: each has idle from its start
	login       time.Time // a stranger's end of everything; zero: it has logged in
	parting     string    // why it was ended, for the client; "" if not
	interrupted bool
	closed      sync.Once
}

// partingTime is how long a client has to take the last words.
const partingTime = 2 * time.Second

// ShowBy implements places.Conn. It is called before the conversation, and by the
// goroutine that answers.
func (p *peer) ShowBy(t time.Time) {
	if t.IsZero() {
		p.commands = -1 // and no longer counted
	}
	p.mu.Lock()
	p.login = t
	p.mu.Unlock()
}

// Resting implements places.Conn: it waits for a command, outside a transaction.
func (p *peer) Resting() bool { return p.resting.Load() }

// GiveWay implements places.Conn.
func (p *peer) GiveWay(l places.Loss) { p.gives(l) }

// eject ends the conversation, whatever it waits for. words tell the client why,
// if it listens. false: it was ended before.
func (p *peer) eject(words string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parting != "" {
		return false
	}
	p.parting = words
	_ = p.Conn.SetWriteDeadline(time.Now().Add(partingTime))
	p.stop()
	return true
}

// ending says whether the conversation is over, and the words for the client: it was
// ejected, or it is a stranger who has had its time.
func (p *peer) ending() (words string, late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parting, !p.login.IsZero() && !time.Now().Before(p.login)
}

// Bound implements wire.Socket: it fixes when reads end, whatever trickles in until then. A zero time
// gives each read its own idle time again: slow but steady content may take
// as long as it likes.
func (p *peer) Bound(until time.Time) {
	p.mu.Lock()
	p.until = until
	p.mu.Unlock()
}

// maxCommands is how many commands a client may give before it has logged in. A
// login takes half a dozen.
const maxCommands = 100

// Command implements wire.Socket: it bounds the commands of a client that has not
// logged in.
func (p *peer) Command() (parting string) {
	if p.commands >= 0 {
		p.commands++
	}
	if p.commands <= maxCommands {
		return ""
	}
	p.srv.metrics.rejected.WithLabelValues("commands_before_login").Inc()
	return p.srv.words("commands_before_login")
}

// Farewell implements wire.Socket.
func (p *peer) Farewell() string {
	words, late := p.ending()
	if words == "" && late {
		p.srv.metrics.rejected.WithLabelValues("login_timeout").Inc()
		words = p.srv.words("login_timeout")
	}
	return words
}

// Rest implements wire.Socket.
func (p *peer) Rest(resting bool) { p.resting.Store(resting) }

// Eager implements wire.Socket.
func (p *peer) Eager(eager bool) { p.eager = eager }

// Read implements net.Conn.
func (p *peer) Read(b []byte) (int, error) {
	if len(p.ahead) > 0 {
		n := copy(b, p.ahead)
		p.ahead = p.ahead[n:]
		return n, nil
	}
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
	return p.Conn.SetReadDeadline(p.inTime(until))
}

// inTime is until, or the end of a stranger's time where that comes first.
func (p *peer) inTime(until time.Time) time.Time {
	if !p.login.IsZero() && p.login.Before(until) {
		return p.login
	}
	return until
}

// Interrupt implements wire.Socket: it ends the read that is waiting, and all later ones.
func (p *peer) Interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
}

func (p *peer) stop() {
	p.interrupted = true
	_ = p.Conn.SetReadDeadline(time.Unix(1, 0))
}

// Write implements net.Conn. A client that does not read its replies is
// given up after the idle time, or when it has to go.
func (p *peer) Write(b []byte) (int, error) {
	if err := p.armWrite(); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

func (p *peer) armWrite() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	until := now.Add(p.idle)
	if p.parting != "" {
		until = now.Add(partingTime)
	} else if end := p.inTime(until); end != until {
		until = later(end, now).Add(partingTime) // for the words that tell it
	}
	return p.Conn.SetWriteDeadline(until)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
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
