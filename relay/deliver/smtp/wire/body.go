package wire

import (
	"bytes"
	"errors"
	"io"
	"net"

	"tlsrelay/relay"
)

// Content writes a body to the connection through its command buffer, so
// that a small message leaves in the same packet as the commands before it.
type Content struct {
	Conn  *Conn
	Stuff bool // DATA: double leading dots, and end with a dot
	bol   bool // at the beginning of a line
	Watch bool // no reply is due: one that comes refuses the message
	Early Reply
	Left  bool // some of the body is on its way
	Gate  Gate // content passes through it; nil: unasked
	// Part tells that more is to follow before the content ends.
	Part bool
	// Gather leaves the end of the body in the buffer, for what is to follow in
	// the same flight.
	Gather bool
}

// Gate is asked before content leaves. When it says no, the transaction ends with
// ErrChanged.
type Gate interface {
	Open() bool // whether a piece of content may leave
	Pass() bool // whether the end of it may leave; from then on the reply is waited for
}

// ErrEarly is the error of content that the host answered before all of it was sent;
// Content.Early has the reply.
var ErrEarly = errors.New("refused while sending")

// ErrChanged is the error of a transaction that the gate ended.
var ErrChanged = errors.New("the demands have changed")

// ReadFrom implements io.ReaderFrom, for bodies that cannot hand over their
// octets in one piece.
func (w *Content) ReadFrom(r io.Reader) (n int64, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b := (*buf)[:cap(*buf)]
	for {
		m, readErr := r.Read(b)
		n += int64(m)
		if _, err = w.Write(b[:m]); err != nil {
			return n, err
		}
		if readErr == io.EOF {
			return n, nil
		}
		if readErr != nil {
			return n, &bodyError{readErr}
		}
	}
}

// ByUs reports whether we ended the conversation ourselves, because the attempt had to
// stop or its demands have changed.
func ByUs(err error) bool { return errors.Is(err, net.ErrClosed) || errors.Is(err, ErrChanged) }

// IsOwn reports whether our own store failed to give the body. No other host will do
// better then.
func IsOwn(err error) bool {
	var own *bodyError
	return errors.As(err, &own)
}

// bodyError is a fault of our own store, not of the connection.
type bodyError struct{ error }

var lineDot = []byte("\n.")

// Write writes a piece of the body. Dots are doubled after every line feed,
// not only after CRLF, so that no body can end the message early for a host
// that takes less for a line end (RFC 5321 §4.5.2).
func (w *Content) Write(p []byte) (int, error) {
	n := len(p)
	if !w.Stuff {
		return n, w.emit(p)
	}
	for len(p) > 0 {
		if w.bol && p[0] == '.' {
			if err := w.emit(lineDot[1:]); err != nil {
				return 0, err
			}
		}
		piece := p
		if i := bytes.Index(p, lineDot); i >= 0 {
			piece = p[:i+1]
		}
		if err := w.emit(piece); err != nil {
			return 0, err
		}
		w.bol = piece[len(piece)-1] == '\n'
		p = p[len(piece):]
	}
	return n, nil
}

// end writes the end of DATA, on a line of its own.
func (w *Content) end() error {
	if !w.bol {
		if err := w.emit([]byte("\r\n")); err != nil {
			return err
		}
	}
	return w.emit([]byte(".\r\n"))
}

// emit gathers octets and writes them by the buffer.
func (w *Content) emit(p []byte) error {
	for len(p) > 0 {
		if len(w.Conn.Out) == cap(w.Conn.Out) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		n := min(len(p), cap(w.Conn.Out)-len(w.Conn.Out))
		w.Conn.Out = append(w.Conn.Out, p[:n]...)
		p = p[n:]
	}
	return nil
}

// flush writes a full buffer, having looked whether the host still wants it.
func (w *Content) flush() error {
	if w.Gate != nil && !w.Gate.Open() {
		return ErrChanged
	}
	if w.Watch && w.Conn.Pending() {
		// Only a whole reply stops the message.
		if rep, err := w.Conn.Read(earlyWithin); err == nil {
			w.Early = rep
			return ErrEarly
		} else if !IsTimeout(err) {
			return err
		}
	}
	w.Left = true
	return w.Conn.Flush()
}

// Surplus reports whether the early reply came before there was anything it could
// answer.
func (w *Content) Surplus() bool { return !w.Left && w.Early.Code != 421 }

// Send writes all of body, and the end of DATA if that is how it goes.
func (w *Content) Send(body relay.Body) error {
	w.bol = true
	n, err := io.Copy(w, body.NewReader())
	if err == nil && n != body.Size() {
		// The host was promised so many octets, by SIZE or BDAT.
		err = &bodyError{io.ErrUnexpectedEOF}
	}
	if err == nil && w.Stuff {
		err = w.end()
	}
	if err == nil && !w.Part && w.Gate != nil && !w.Gate.Pass() {
		err = ErrChanged
	}
	if err == nil && !w.Gather {
		err = w.flush()
	}
	return err
}
