package wire

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"tlsrelay/relay/unread"
)

// Conn is one connection with its buffers and bounds. Every read of a reply
// and every write of a chunk has its own deadline; a reply that trickles in
// one octet at a time is still bounded, for its deadline is set once.
type Conn struct {
	Raw     net.Conn // TCP
	socket  socket   // Raw, as TLS sees it
	rw      net.Conn // Raw, or TLS over socket
	r       *bufio.Reader
	Out     []byte // commands gathered for one write
	scratch []byte // text of the last reply
	Timeout time.Duration
	end     time.Time // of the whole transaction; zero: none
	buffer  *[]byte   // lent to Out until Finish
}

// readBuffer bounds a reply line as well: ReadSlice fails beyond it.
const readBuffer = maxReplyLine

// NewConn makes one over raw. timeout bounds each reply and each chunk written.
func NewConn(raw net.Conn, timeout time.Duration) *Conn {
	return &Conn{Raw: raw, socket: socket{Conn: raw}, rw: raw, r: bufio.NewReaderSize(raw, readBuffer), Timeout: timeout}
}

// StartTLS makes a handshake within d, and puts TLS under the conversation.
func (c *Conn) StartTLS(cfg *tls.Config, d time.Duration) error {
	c.Raw.SetDeadline(time.Now().Add(d))
	t := tls.Client(&c.socket, cfg)
	if err := t.Handshake(); err != nil {
		return err
	}
	c.Raw.SetDeadline(time.Time{})
	c.secure(t)
	return nil
}

// secure puts TLS under the conversation. The old read buffer must be empty;
// the caller has looked (row B5).
func (c *Conn) secure(t net.Conn) {
	c.rw = t
	c.r = bufio.NewReaderSize(t, readBuffer)
}

// WhileOpen closes the connection when ctx ends, unless stop is called before; stop reports
// whether it was. It closes and sets no deadline, because a step that has not noticed yet
// would set the next one.
func (c *Conn) WhileOpen(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.Raw.Close() })
}

// Begin lends the connection a buffer for commands until Finish, and bounds the time until
// then.
func (c *Conn) Begin(d time.Duration) {
	c.buffer = buffers.Get().(*[]byte)
	c.Out = (*c.buffer)[:0]
	c.Bound(d)
}

// Bound sets how long from now all replies may take until Finish.
func (c *Conn) Bound(d time.Duration) { c.end = time.Now().Add(d) }

// Finish takes the buffer and the bound back.
func (c *Conn) Finish() {
	buffers.Put(c.buffer)
	c.end, c.Out, c.buffer = time.Time{}, nil, nil
}

// Unread reports whether the host has said more than was read, as far as that has
// arrived in the buffer.
func (c *Conn) Unread() bool { return c.r.Buffered() > 0 }

func (c *Conn) deadline(d time.Duration) time.Time {
	t := time.Now().Add(d)
	if !c.end.IsZero() && c.end.Before(t) {
		return c.end
	}
	return t
}

// Read reads one reply within d.
func (c *Conn) Read(d time.Duration) (Reply, error) {
	if err := c.Raw.SetReadDeadline(c.deadline(d)); err != nil {
		return Reply{}, err
	}
	rep, err := readReply(c.r, c.scratch)
	c.scratch = rep.Text
	return rep, err
}

// Flush writes the gathered commands.
func (c *Conn) Flush() error {
	_, err := c.Write(c.Out)
	c.Out = c.Out[:0]
	return err
}

// maxWrite is how much one deadline covers.
const maxWrite = 64 << 10

// Write writes b, each chunk within the timeout, so that a peer that stops
// reading is noticed.
func (c *Conn) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		chunk := b[:min(len(b), maxWrite)]
		if err = c.Raw.SetWriteDeadline(c.deadline(c.Timeout)); err != nil {
			return n, err
		}
		var m int
		if c.rw != c.Raw && len(chunk) > recordSize {
			m, err = c.socket.together(c.rw, chunk)
		} else {
			m, err = c.rw.Write(chunk)
		}
		n += m
		b = b[m:]
	}
	return n, err
}

// recordSize is how much goes into one record of TLS (RFC 8446 §5.1).
const recordSize = 16 << 10

// socket is the TCP connection under TLS, which writes every record by itself.
type socket struct {
	net.Conn
	batch *[]byte // records that wait for others; nil: none do
}

// flights lend the room for the records of one chunk.
var flights = sync.Pool{New: func() any { b := make([]byte, 0, maxWrite+1<<10); return &b }}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	if s.batch == nil {
		return s.Conn.Write(b)
	}
	*s.batch = append(*s.batch, b...)
	return len(b), nil
}

// together writes b through t, which is TLS over s, in one write. TLS does not
// hear of an error, so that after one nothing more may be written.
func (s *socket) together(t net.Conn, b []byte) (n int, err error) {
	s.batch = flights.Get().(*[]byte)
	n, err = t.Write(b)
	records := s.batch
	s.batch = nil
	if err == nil {
		if _, err = s.Conn.Write(*records); err != nil {
			n = 0
		}
	}
	*records = (*records)[:0]
	flights.Put(records)
	return n, err
}

// Command sends one line and reads its reply.
func (c *Conn) Command(line string) (Reply, error) { return c.CommandWithin(line, c.Timeout) }

// CommandWithin is command with a time of its own for the reply.
func (c *Conn) CommandWithin(line string, d time.Duration) (Reply, error) {
	if c.Unread() {
		// It answers no command. A 421 may come so (RFC 5321 §3.8); after anything
		// else every reply would be taken for the answer to the next command.
		if rep, err := c.Read(d); err != nil || rep.Code == 421 {
			return rep, err
		}
		return Reply{}, ErrReply
	}
	c.Out = append(append(c.Out, line...), "\r\n"...)
	if err := c.Flush(); err != nil {
		return c.LastReply(err)
	}
	return c.Read(d)
}

// LastReply reads a reply that came before writing failed by cause: a host that answers and
// closes is to be quoted, not reported as a broken pipe. If there is an end or an alert
// instead, that is the error, for it tells more than cause.
func (c *Conn) LastReply(cause error) (Reply, error) {
	rep, err := c.Read(min(c.Timeout, lastReplyWithin))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Reply{}, cause
	}
	return rep, err
}

// Pending reports whether the host has said something that was not read yet, or has hung
// up. Under TLS the octets in the socket may be a session ticket, which a read consumes
// without giving anything; and crypto/tls may hold a record that it has not opened, which
// a read shows even with no time for the socket.
func (c *Conn) Pending() bool {
	waiting := unread.Has(c.Raw)
	switch {
	case c.Unread():
		return true
	case c.rw == c.Raw:
		return waiting
	case waiting:
		c.Raw.SetReadDeadline(time.Now().Add(2 * time.Millisecond))
	default:
		c.Raw.SetReadDeadline(time.Unix(1, 0))
	}
	_, err := c.r.Peek(1)
	// What is in the socket still came too late for the read, and may be the end.
	return !IsTimeout(err) || waiting && unread.Has(c.Raw)
}

// Quit sends QUIT and closes. It does not wait for the reply.
func (c *Conn) Quit() {
	c.Raw.SetDeadline(time.Now().Add(quitWithin))
	c.rw.Write([]byte("QUIT\r\n"))
	c.rw.Close() // close_notify under TLS; bounded by crypto/tls itself
}

// QuitAndWait sends QUIT, waits a moment for the host to close, and closes. Until then the
// host counts the connection among those open.
func (c *Conn) QuitAndWait() {
	c.Raw.SetDeadline(time.Now().Add(250 * time.Millisecond))
	c.rw.Write([]byte("QUIT\r\n"))
	for {
		if _, err := c.r.Discard(1); err != nil {
			break
		}
	}
	c.rw.Close()
}

// Close ends the connection at once.
func (c *Conn) Close() { c.Raw.Close() }

// buffers lends out what a session needs only while it works, so that idle
// sessions stay small.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, maxWrite); return &b }}
