package submission

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// conn is the net.Conn that go-smtp talks through, above TLS. It hands over
// one command line for each read, then that command's chunk if it was BDAT,
// so that both sides always agree on what is a command. All but drain and
// setBusy is called from go-smtp's one goroutine for it.
type conn struct {
	srv  *Server
	peer *peer
	tls  *tls.Conn // nil in clear
	// secured is the version and cipher suite of the finished handshake, for
	// Received; "" before and in clear.
	secured  string
	upgraded bool // by STARTTLS: the client has seen a greeting

	in    input
	feed  []byte // what go-smtp reads next
	chunk int64  // octets of the current BDAT chunk still to come
	raw   string // the last command line, without its end
	verb  string // of raw, in capitals; "" before the first
	esmtp bool   // the last greeting was EHLO

	reply []byte // what go-smtp has answered to verb
	wire  []byte // replies in our words, not yet sent
	more  bool   // a 334: the next line is not a command

	hangup  bool   // close when the reply is out
	parting string // what is said before that
	gone    bool   // nothing more to read or to say
	moved   bool   // the socket is another conn's now

	mu       sync.Mutex
	busy     bool // a transaction is open
	waiting  bool // for a command
	draining bool
}

func newConn(s *Server, p *peer, implicit bool) *conn {
	c := &conn{srv: s, peer: p}
	c.in.src = p
	if implicit {
		c.tls = tls.Server(p, s.o.TLS)
		c.in.src = c.tls
	}
	return c
}

// Read gives go-smtp its next bytes.
func (c *conn) Read(b []byte) (int, error) {
	if c.tls != nil && c.secured == "" && !c.gone {
		c.handshake()
	}
	c.settle()
	if len(c.feed) == 0 && c.chunk > 0 {
		return c.readChunk(b)
	}
	if len(c.feed) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, c.feed)
	c.feed = c.feed[n:]
	return n, nil
}

// next puts the next command line into feed. io.EOF ends the conversation.
func (c *conn) next() error {
	for {
		if c.hangup {
			c.end(c.parting)
		}
		if c.gone || c.moved {
			return io.EOF
		}
		line, err := c.readLine()
		if err != nil {
			c.end(c.farewell(err))
			return io.EOF
		}
		if c.tooMany() {
			c.end(c.srv.words("commands_before_login"))
			return io.EOF
		}
		given := strings.TrimRight(string(line), "\r\n")
		if c.raw = tidy(given, c.srv.o.Hostname); c.raw != given {
			line = []byte(c.raw + "\r\n")
		}
		if c.more {
			c.feed = line
			return nil
		}
		if !c.command() {
			continue
		}
		c.feed = line
		return nil
	}
}

// maxCommands is how many commands a client may give before it has logged in. A
// login takes half a dozen.
const maxCommands = 100

// tooMany counts a command of a client that has not logged in, and says whether
// there shall be no more.
func (c *conn) tooMany() bool {
	p := c.peer
	if p.commands >= 0 {
		p.commands++
	}
	if p.commands <= maxCommands {
		return false
	}
	c.srv.metrics.rejected.WithLabelValues("commands_before_login").Inc()
	return true
}

// command notes what raw means for the bytes after it. false: it was carried
// out here and go-smtp does not hear of it.
func (c *conn) command() bool {
	verb, arg, _ := strings.Cut(c.raw, " ")
	c.verb = strings.ToUpper(verb)
	switch {
	case strings.HasPrefix(c.verb, "STARTTLS"):
		c.startTLS(c.verb == "STARTTLS" && strings.TrimSpace(arg) == "")
		return false
	case c.verb == "BDAT":
		var known bool
		if c.chunk, known = chunkSize(arg); !known {
			c.hangup = true // what follows may be the chunk, and is no command
		}
	case c.verb == "EHLO", c.verb == "HELO":
		c.esmtp = c.verb == "EHLO"
	}
	return true
}

// chunkSize reads the argument of BDAT exactly as go-smtp does, which reads no
// chunk where it does not understand that.
func chunkSize(arg string) (n int64, known bool) {
	args := strings.Fields(arg)
	if len(args) == 0 || len(args) > 2 || len(args) == 2 && !strings.EqualFold(args[1], "LAST") {
		return 0, false
	}
	size, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return 0, false
	}
	return int64(size), true
}

// readLine waits for a whole line. The time for it is fixed at the start:
// nobody keeps a place by sending one octet now and then.
func (c *conn) readLine() ([]byte, error) {
	c.in.shrink()
	if !c.wait() {
		return nil, os.ErrDeadlineExceeded
	}
	defer c.proceed()
	defer func() { c.peer.eager = false }()
	for {
		line, ok, err := c.in.line()
		if ok || err != nil {
			return line, err
		}
		c.peer.eager = c.in.buffered() > 0
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// wait begins a wait for a command; false: there shall be no further one.
func (c *conn) wait() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining && !c.busy {
		return false
	}
	c.waiting = true
	c.peer.resting.Store(!c.busy)
	c.peer.bound(time.Now().Add(c.srv.o.IdleTimeout))
	return true
}

func (c *conn) proceed() {
	c.mu.Lock()
	c.waiting = false
	c.mu.Unlock()
	c.peer.resting.Store(false)
	c.peer.bound(time.Time{})
}

// drain makes the conversation end as soon as no transaction is open. Safe
// for concurrent use.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.waiting && !c.busy {
		c.peer.interrupt()
	}
}

// setBusy notes whether a transaction is open. Safe for concurrent use.
func (c *conn) setBusy(busy bool) {
	c.mu.Lock()
	c.busy = busy
	c.mu.Unlock()
}

// farewell is the reply to a read that failed, "" when nobody would hear it.
func (c *conn) farewell(err error) string {
	c.mu.Lock()
	draining := c.draining
	c.mu.Unlock()
	host := c.srv.o.Hostname
	parting, late := c.peer.ending()
	switch {
	case parting != "":
		return parting
	case late:
		c.srv.metrics.rejected.WithLabelValues("login_timeout").Inc()
		return c.srv.words("login_timeout")
	case errors.Is(err, errLineTooLong):
		return "500 5.5.2 Line too long"
	case draining:
		return "421 4.3.2 " + host + " Service shutting down, try again later"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "421 4.4.2 " + host + " Timeout, closing connection"
	}
	return ""
}

// readChunk reads on in the chunk of BDAT. It never ends in io.EOF: go-smtp
// takes that for the end of the chunk and would accept a truncated message.
func (c *conn) readChunk(b []byte) (int, error) {
	if c.gone {
		return 0, io.ErrUnexpectedEOF
	}
	b = b[:min(int64(len(b)), c.chunk)]
	var n int
	var err error
	if c.in.buffered() > 0 {
		n = copy(b, c.in.window())
		c.in.use(n)
	} else {
		c.flush()
		c.peer.eager = true
		n, err = c.in.src.Read(b)
		c.peer.eager = false
	}
	c.chunk -= int64(n)
	if n > 0 || err == nil {
		return n, nil
	}
	c.end(c.farewell(err))
	return 0, io.ErrUnexpectedEOF
}

// errCutShort is the error of content that did not arrive in full.
var errCutShort = errors.New("connection lost in the content")

// readData passes the content of DATA to sink, past go-smtp, whose own reader
// then finds an empty message. When it returns an error the connection is
// over: whatever else arrives would be content read as commands. More than
// limit octets are not worth waiting for. doubtful: other servers may not have
// seen the end where it was.
func (c *conn) readData(limit int64, sink func([]byte)) (doubtful bool, err error) {
	c.in.grow()
	defer func() { c.peer.eager = false }()
	var u undot
	for left := limit; left > 0; {
		used, end := u.next(c.in.window(), sink)
		c.in.use(used)
		if end {
			c.feed = endOfData
			return u.doubtful, nil
		}
		left -= int64(used)
		c.peer.eager = left < limit || c.in.buffered() > 0
		if err := c.fill(); err != nil {
			c.end(c.farewell(err))
			return false, errCutShort
		}
	}
	c.end("552 5.3.4 " + tooBig)
	return false, errCutShort
}

// fill reads once, after everything said so far is sent.
func (c *conn) fill() error {
	if c.gone {
		return net.ErrClosed
	}
	c.settle()
	c.flush()
	return c.in.fill()
}

// Write takes replies from go-smtp.
func (c *conn) Write(b []byte) (int, error) {
	if !c.gone && !c.moved {
		c.reply = append(c.reply, b...)
	}
	return len(b), nil
}

// settle puts a finished reply into our words.
func (c *conn) settle() {
	if len(c.reply) == 0 {
		return
	}
	if len(c.wire) > maxWire {
		c.flush()
	}
	c.more = bytes.HasPrefix(c.reply, []byte("334"))
	switch {
	case c.verb == "" && c.upgraded: // RFC 3207: no second greeting
	default:
		c.translate(c.reply)
	}
	c.reply = c.reply[:0]
}

func (c *conn) flush() {
	if len(c.wire) == 0 {
		return
	}
	var w io.Writer = c.peer
	if c.tls != nil {
		w = c.tls
	}
	// A reply that cannot be sent ends the conversation at the next read.
	_, _ = w.Write(c.wire)
	c.wire = c.wire[:0]
	if cap(c.wire) > 2*maxWire {
		c.wire = nil
	}
}

// maxWire is how many octets of replies gather before they are sent: there may be
// thousands of connections, and nothing is won beyond some packets.
const maxWire = 4 << 10

// say adds a reply of our own.
func (c *conn) say(reply string) {
	c.wire = append(append(c.wire, reply...), "\r\n"...)
}

// end sends what is left to say and closes the socket.
func (c *conn) end(reply string) {
	if c.gone || c.moved {
		return
	}
	c.settle()
	if reply != "" {
		c.say(reply)
	}
	c.flush()
	c.gone = true
	if c.secured != "" {
		_ = c.tls.CloseWrite() // close_notify: the end is ours, not an attacker's
	}
	c.peer.Close()
}

// startTLS carries STARTTLS out: the handshake and all that follows is a new
// conversation with go-smtp, which knows nothing of this one.
func (c *conn) startTLS(bare bool) {
	switch {
	case !bare:
		c.say("501 5.5.4 STARTTLS has no parameters")
	case c.tls != nil:
		c.say("503 5.5.1 TLS is active already")
	case c.srv.o.TLS == nil:
		c.say("502 5.5.1 TLS is not available")
	case c.in.buffered() > 0:
		// Somebody in between may have added it (CVE-2011-0411).
		c.end("554 5.5.1 Nothing may follow STARTTLS before the handshake")
	default:
		c.say("220 2.0.0 Begin TLS negotiation now")
		c.flush()
		c.moved = true
		next := newConn(c.srv, c.peer, true)
		next.upgraded = true
		if !c.srv.adopt(next) {
			c.peer.Close()
		}
	}
}

// handshakeTime bounds a handshake, which needs no human.
const handshakeTime = time.Minute

// handshake is made before anything is read. If it fails there is nothing to
// say: the client would read a reply in clear (RFC 3207 §4.1).
func (c *conn) handshake() {
	if !c.wait() {
		c.gone = true
		c.peer.Close()
		return
	}
	limit := min(handshakeTime, c.srv.o.IdleTimeout)
	c.peer.bound(time.Now().Add(limit))
	err := c.tls.HandshakeContext(context.Background())
	c.proceed()
	if err != nil {
		if parting, late := c.peer.ending(); late {
			c.srv.metrics.rejected.WithLabelValues("login_timeout").Inc()
		} else if parting == "" {
			c.srv.metrics.rejected.WithLabelValues("tls_handshake").Inc()
		}
		c.gone = true
		c.peer.Close()
		return
	}
	state := c.tls.ConnectionState()
	c.secured = tls.VersionName(state.Version) + ":" + tls.CipherSuiteName(state.CipherSuite)
	c.srv.metrics.tls.WithLabelValues(tlsVersion(state.Version)).Inc()
}

func tlsVersion(v uint16) string {
	return strings.TrimPrefix(tls.VersionName(v), "TLS ")
}

// Close ends the conversation, sending what is left to say.
func (c *conn) Close() error {
	if c.moved {
		c.srv.forget(c)
		return nil
	}
	c.end("")
	c.srv.forget(c)
	return nil
}

// The rest of net.Conn. Deadlines are the peer's business.

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.peer.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.peer.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
