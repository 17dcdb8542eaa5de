package wire

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"tlsrelay/relay/submission/content"
)

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

// readChunk reads on in the chunk of BDAT. It never ends in io.EOF: go-smtp
// takes that for the end of the chunk and would accept a truncated message.
func (c *Conn) readChunk(b []byte) (int, error) {
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
		c.Socket.Eager(true)
		n, err = c.in.src.Read(b)
		c.Socket.Eager(false)
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

// ReadData passes the content of DATA to sink, past go-smtp, whose own reader
// then finds an empty message. When it returns an error the connection is
// over: whatever else arrives would be content read as commands. More than
// limit octets are not worth waiting for. doubtful: other servers may not have
// seen the end where it was.
func (c *Conn) ReadData(limit int64, sink func([]byte)) (doubtful bool, err error) {
	c.in.grow()
	defer func() { c.Socket.Eager(false) }()
	var u content.Undot
	for left := limit; left > 0; {
		used, end := u.Next(c.in.window(), sink)
		c.in.use(used)
		if end {
			c.feed = content.EndOfData
			return u.Doubtful, nil
		}
		left -= int64(used)
		c.Socket.Eager(left < limit || c.in.buffered() > 0)
		if err := c.fill(); err != nil {
			c.end(c.farewell(err))
			return false, errCutShort
		}
	}
	c.end("552 5.3.4 " + content.ErrTooBig.Words)
	return false, errCutShort
}
