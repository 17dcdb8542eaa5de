package wire

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// Conn is the net.Conn that go-smtp talks through, above TLS. It hands over
// one command line for each read, then that command's chunk if it was BDAT,
// so that both sides always agree on what is a command. All but Drain and
// SetBusy is called from go-smtp's one goroutine for it.
type Conn struct {
	Socket Socket // below TLS

	config *Config
	tls    *tls.Conn // nil in clear
	// secured is the version and cipher suite of the finished handshake; ""
	// before and in clear.
	secured  string
	upgraded bool // by STARTTLS: the client has seen a greeting

	in    input
	feed  []byte // what go-smtp reads next
	chunk int64  // octets of the current BDAT chunk still to come
	line  string // the last command, without its line end
	verb  string // of line, in capitals; "" before the first
	esmtp bool   // the last greeting was EHLO

	reply  []byte // what go-smtp has answered to verb
	unsent []byte // replies in our words
	more   bool   // a 334: the next line is not a command

	hangup  bool   // close when the reply is out
	parting string // what is said before that
	gone    bool   // nothing more to read or to say
	moved   bool   // the socket is another Conn's now

	mu       sync.Mutex
	busy     bool // a transaction is open
	waiting  bool // for a command
	draining bool
}

// New makes the connection of a client that says nothing before the greeting,
// or, where implicit is set, before the TLS handshake (RFC 8314 §3).
func New(config *Config, s Socket, implicit bool) *Conn {
	c := &Conn{Socket: s, config: config}
	c.in.src = s
	if implicit {
		c.tls = tls.Server(s, config.TLS)
		c.in.src = c.tls
	}
	return c
}

// Line is the command that go-smtp carries out, without its line end.
func (c *Conn) Line() string { return c.line }

// ESMTP reports whether the client's last greeting was EHLO.
func (c *Conn) ESMTP() bool { return c.esmtp }

// Secured is the TLS version and the cipher suite, as in
// "TLS 1.3:TLS_AES_128_GCM_SHA256"; "" in clear.
func (c *Conn) Secured() string { return c.secured }

// AuthAllowed reports whether a secret may travel over c.
func (c *Conn) AuthAllowed() bool { return c.tls != nil || c.config.AllowPlaintextAuth }

// HangUp ends the conversation once the reply to the current command is out.
// parting is a last reply, "" for none.
func (c *Conn) HangUp(parting string) { c.hangup, c.parting = true, parting }

// Read gives go-smtp its next bytes.
func (c *Conn) Read(b []byte) (int, error) {
	if c.tls != nil && c.secured == "" && !c.gone {
		c.handshake()
	}
	c.finishReply()
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
func (c *Conn) next() error {
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
		if parting := c.Socket.Command(); parting != "" {
			c.end(parting)
			return io.EOF
		}
		given := strings.TrimRight(string(line), "\r\n")
		if c.line = tidy(given, c.config.Hostname); c.line != given {
			line = []byte(c.line + "\r\n")
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

// command notes what raw means for the bytes after it. false: it was carried
// out here and go-smtp does not hear of it.
func (c *Conn) command() bool {
	verb, arg, _ := strings.Cut(c.line, " ")
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

// readLine waits for a whole line. The time for it is fixed at the start:
// nobody keeps a place by sending one octet now and then.
func (c *Conn) readLine() ([]byte, error) {
	c.in.shrink()
	if !c.wait() {
		return nil, os.ErrDeadlineExceeded
	}
	defer c.proceed()
	defer func() { c.Socket.Eager(false) }()
	for {
		line, ok, err := c.in.line()
		if ok || err != nil {
			return line, err
		}
		c.Socket.Eager(c.in.buffered() > 0)
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// wait begins a wait for a command; false: there shall be no further one.
func (c *Conn) wait() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining && !c.busy {
		return false
	}
	c.waiting = true
	c.Socket.Rest(!c.busy)
	c.Socket.Bound(time.Now().Add(c.config.IdleTimeout))
	return true
}

func (c *Conn) proceed() {
	c.mu.Lock()
	c.waiting = false
	c.mu.Unlock()
	c.Socket.Rest(false)
	c.Socket.Bound(time.Time{})
}

// fill reads once, after everything said so far is sent.
func (c *Conn) fill() error {
	if c.gone {
		return net.ErrClosed
	}
	c.finishReply()
	c.flush()
	return c.in.fill()
}

// Drain makes the conversation end as soon as no transaction is open. Safe
// for concurrent use.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.waiting && !c.busy {
		c.Socket.Interrupt()
	}
}

// SetBusy notes whether a transaction is open. Safe for concurrent use.
func (c *Conn) SetBusy(busy bool) {
	c.mu.Lock()
	c.busy = busy
	c.mu.Unlock()
}

// farewell is the reply to a read that failed, "" when nobody would hear it.
func (c *Conn) farewell(err error) string {
	c.mu.Lock()
	draining := c.draining
	c.mu.Unlock()
	if parting := c.Socket.Farewell(); parting != "" {
		return parting
	}
	switch {
	case errors.Is(err, errLineTooLong):
		return "500 5.5.2 Line too long"
	case draining:
		return "421 4.3.2 " + c.config.Hostname + " Service shutting down, try again later"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "421 4.4.2 " + c.config.Hostname + " Timeout, closing connection"
	}
	return ""
}

// end sends what is left to say and closes the socket.
func (c *Conn) end(reply string) {
	if c.gone || c.moved {
		return
	}
	c.finishReply()
	if reply != "" {
		c.say(reply)
	}
	c.flush()
	c.gone = true
	if c.secured != "" {
		_ = c.tls.CloseWrite() // close_notify: the end is ours, not an attacker's
	}
	c.Socket.Close()
}

// Close ends the conversation, sending what is left to say.
func (c *Conn) Close() error {
	c.end("")
	c.config.Closed(c)
	return nil
}

// The rest of net.Conn. Deadlines are the socket's business.

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.Socket.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.Socket.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }
