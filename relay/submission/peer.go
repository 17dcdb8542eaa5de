package submission

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tlsrelay/relay/places"
	"tlsrelay/relay/unread"
)

// peer is the socket of one client, below TLS. Reads get their deadlines here and not
// above TLS, because one TLS record may take many reads.
type peer struct {
	net.Conn
	srv  *Server
	ip   netip.Addr // of the client; not known before a balancer's PROXY header
	idle time.Duration
	seat places.Seat

	ahead    []byte // was read behind a PROXY header
	failures int    // failed logins; of the goroutine of the conversation
	commands int    // before a login; of that goroutine, too

	waits   atomic.Int64 // since when it waits for a command, in Unix nanoseconds; 0: it does not
	working atomic.Int64 // since when it has not waited for as long as pause

	quick bool // see QuickAck; of the goroutine that reads, and so is acks
	acks  quickAck

	mu          sync.Mutex
	until       time.Time // the deadline of all reads; zero: each read has idle
	login       time.Time // a stranger's deadline for all; zero: it has logged in
	parting     string    // the reply that tells why it was ejected; "": it was not
	interrupted bool
	closed      sync.Once
}

// partingTime is how long a client has to read the parting reply.
const partingTime = 2 * time.Second

// ShowBy implements places.Conn. It is called before the conversation, and by the
// goroutine that answers.
func (p *peer) ShowBy(t time.Time) {
	if t.IsZero() {
		p.commands = -1 // and no longer counted
		p.working.Store(time.Now().UnixNano())
	}
	p.mu.Lock()
	p.login = t
	p.mu.Unlock()
}

// Resting implements places.Conn: it waits for a command, outside a transaction.
func (p *peer) Resting() bool { return p.waits.Load() != 0 }

// Overdue implements places.Conn. A transaction may take as long as its client likes,
// and so may one after another, but not when others want the place.
func (p *peer) Overdue() bool {
	return time.Now().UnixNano()-p.working.Load() >= int64(p.srv.o.workTime)
}

// pause is how long a client must wait between two transactions for its work to count
// from the second one.
const pause = time.Second

// Asks implements places.Conn.
func (p *peer) Asks() bool { return unread.Has(p.Conn) }

// GiveWay implements places.Conn.
func (p *peer) GiveWay(l places.Loss) {
	p.srv.shortOf(l)
	p.eject(p.srv.partingReply(l.Cause))
}

// eject ends the conversation, whatever it waits for. parting is the reply that tells
// the client why. It returns false if the client was ejected before.
func (p *peer) eject(parting string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.parting != "" {
		return false
	}
	p.parting = parting
	_ = p.Conn.SetWriteDeadline(time.Now().Add(partingTime))
	p.stop()
	return true
}

// ending returns the parting reply to a client that was ejected, and whether a
// stranger's time is over.
func (p *peer) ending() (parting string, late bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.parting, !p.login.IsZero() && !time.Now().Before(p.login)
}

// EndReads implements wire.Socket. While each read has a timeout of its own,
// slow but steady content may take as long as it likes.
func (p *peer) EndReads(until time.Time) {
	p.mu.Lock()
	p.until = until
	p.mu.Unlock()
}

// maxCommands is how many commands a client may give before it logs in. A login takes
// half a dozen.
const maxCommands = 100

// Command implements wire.Socket. It ends the conversation of a client that has given
// too many commands before a login.
func (p *peer) Command() (parting string) {
	if p.commands >= 0 {
		p.commands++
	}
	if p.commands <= maxCommands {
		return ""
	}
	p.srv.metrics.rejected.WithLabelValues("commands_before_login").Inc()
	return p.srv.partingReply("commands_before_login")
}

// Parting implements wire.Socket.
func (p *peer) Parting() string {
	parting, late := p.ending()
	if parting == "" && late {
		p.srv.metrics.rejected.WithLabelValues("login_timeout").Inc()
		return p.srv.partingReply("login_timeout")
	}
	return parting
}

// Idle implements wire.Socket.
func (p *peer) Idle(idle bool) {
	since := p.waits.Load()
	if idle == (since != 0) {
		return
	}
	now := time.Now().UnixNano()
	if idle {
		p.waits.Store(now)
		return
	}
	if now-since >= int64(pause) {
		p.working.Store(now)
	}
	p.waits.Store(0)
}

// QuickAck implements wire.Socket.
func (p *peer) QuickAck(quick bool) { p.quick = quick }

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
	if p.quick {
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

// inTime returns until, or the end of a stranger's time if that comes first.
func (p *peer) inTime(until time.Time) time.Time {
	if !p.login.IsZero() && p.login.Before(until) {
		return p.login
	}
	return until
}

// Interrupt implements wire.Socket.
func (p *peer) Interrupt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
}

func (p *peer) stop() {
	p.interrupted = true
	_ = p.Conn.SetReadDeadline(time.Unix(1, 0))
}

// Write implements net.Conn. It gives up a client that does not read its replies:
// after the idle timeout, or soon after the client was ejected.
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
		until = later(end, now).Add(partingTime) // for the parting reply
	}
	return p.Conn.SetWriteDeadline(until)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Close closes the socket. It is safe for concurrent use.
func (p *peer) Close() error {
	err := net.ErrClosed
	p.closed.Do(func() {
		err = p.Conn.Close()
		p.srv.places.Leave(&p.seat)
		p.srv.metrics.current.Dec()
	})
	return err
}
