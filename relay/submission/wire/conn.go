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

// Conn is the net.Conn that go-smtp talks through, above TLS. Each read gives
// one command line, or a part of the chunk behind BDAT, so that go-smtp and the
// client always agree on what is a command. Drain and SetBusy are safe for
// concurrent use; go-smtp's goroutine for the connection calls the rest.
type Conn struct {
	Socket Socket // below TLS

	config   *Config
	tls      *tls.Conn // nil in clear
	secured  string    // see Secured
	upgraded bool      // by STARTTLS: the client has had its greeting

	in    input
	feed  []byte // go-smtp reads it next
	chunk int64  // octets of the BDAT chunk that are still to come
	line  string // the last command, without its line end
	verb  string // of line, in capitals; "" before the first
	esmtp bool   // the last greeting was EHLO

	reply  []byte // what go-smtp has answered to verb
	unsent []byte // replies in our texts
	more   bool   // after a 334: the next line is no command

	hangup  bool   // the conversation ends when the reply is out ...
	parting string // ... and after this one, if there is one
	gone    bool   // the socket is closed
	moved   bool   // the socket is another Conn's now

	mu       sync.Mutex
	busy     bool // a transaction is open
	waiting  bool // for a command
	draining bool
}

// New makes a Conn of a client's socket. With implicit, it begins with the TLS
// handshake (RFC 8314 §3).
func New(config *Config, s Socket, implicit bool) *Conn {
	c := &Conn{Socket: s, config: config}
	c.in.src = s
	if implicit {
		c.tls = tls.Server(s, config.TLS)
		c.in.src = c.tls
	}
	return c
}

// Line is the last command, without its line end.
func (c *Conn) Line() string { return c.line }

// ESMTP reports whether the client's last greeting was EHLO.
func (c *Conn) ESMTP() bool { return c.esmtp }

// Secured is the TLS version and the cipher suite, as in
// "TLS 1.3:TLS_AES_128_GCM_SHA256"; "" in clear.
func (c *Conn) Secured() string { return c.secured }

// AuthAllowed reports whether the client may send a secret over c.
func (c *Conn) AuthAllowed() bool { return c.tls != nil || c.config.AllowPlaintextAuth }

// HangUp ends the conversation when the reply to the current command is out.
// parting is one more reply, "" for none.
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

// next reads the next command line into feed. It returns io.EOF at the end of
// the conversation.
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
			c.end(c.lastReply(err))
			return io.EOF
		}
		if parting := c.Socket.Command(); parting != "" {
			c.end(parting)
			return io.EOF
		}
		given := strings.TrimRight(string(line), "\r\n")
		if c.line = normalize(given, c.config.Hostname); c.line != given {
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

// command notes what the line means for the bytes behind it. It returns false
// for a command that it carries out itself, so that go-smtp need not see it.
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
			c.hangup = true // what follows may be the chunk, so it is no command
		}
	case c.verb == "EHLO", c.verb == "HELO":
		c.esmtp = c.verb == "EHLO"
	}
	return true
}

// readLine waits for a whole line. Its deadline is set at the start, so that
// no client keeps its connection by one octet now and then.
func (c *Conn) readLine() ([]byte, error) {
	c.in.shrink()
	if !c.wait() {
		return nil, os.ErrDeadlineExceeded
	}
	defer c.proceed()
	defer func() { c.Socket.QuickAck(false) }()
	for {
		line, ok, err := c.in.line()
		if ok || err != nil {
			return line, err
		}
		c.Socket.QuickAck(c.in.buffered() > 0)
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// wait begins the wait for a command. It returns false when the server drains
// and there shall be no further command.
func (c *Conn) wait() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining && !c.busy {
		return false
	}
	c.waiting = true
	c.Socket.Idle(!c.busy)
	c.Socket.EndReads(time.Now().Add(c.config.IdleTimeout))
	return true
}

func (c *Conn) proceed() {
	c.mu.Lock()
	c.waiting = false
	c.mu.Unlock()
	c.Socket.Idle(false)
	c.Socket.EndReads(time.Time{})
}

// fill sends all replies, and reads once.
func (c *Conn) fill() error {
	if c.gone {
		return net.ErrClosed
	}
	c.finishReply()
	c.flush()
	return c.in.fill()
}

// Drain ends the conversation as soon as no transaction is open. It is safe for
// concurrent use.
func (c *Conn) Drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	if c.waiting && !c.busy {
		c.Socket.Interrupt()
	}
}

// SetBusy tells whether a transaction is open. It is safe for concurrent use.
func (c *Conn) SetBusy(busy bool) {
	c.mu.Lock()
	c.busy = busy
	c.mu.Unlock()
}

// lastReply is the reply to a read that failed with err, "" if nobody is there to
// read it.
func (c *Conn) lastReply(err error) string {
	c.mu.Lock()
	draining := c.draining
	c.mu.Unlock()
	if parting := c.Socket.Parting(); parting != "" {
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

// end sends all replies, with one more unless it is "", and closes the socket.
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
		_ = c.tls.CloseWrite() // close_notify proves that no attacker has cut the connection
	}
	c.Socket.Close()
}

// Close implements net.Conn: it ends the conversation.
func (c *Conn) Close() error {
	c.end("")
	c.config.Closed(c)
	return nil
}

// The rest of net.Conn. go-smtp sets no deadlines: the socket's are ours.

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
