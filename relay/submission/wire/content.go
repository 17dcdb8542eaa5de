package wire

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"tlsrelay/relay/submission/content"
)

// chunkSize reads the argument of BDAT exactly as go-smtp does. Where go-smtp
// does not understand the argument, it reads no chunk, and neither do we.
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

// readChunk reads the next part of a BDAT chunk. It never returns io.EOF: go-smtp
// takes that for the end of the chunk, and would accept half a message.
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
		c.Socket.QuickAck(true)
		n, err = c.in.src.Read(b)
		c.Socket.QuickAck(false)
	}
	c.chunk -= int64(n)
	if n > 0 || err == nil {
		return n, nil
	}
	c.end(c.lastReply(err))
	return 0, io.ErrUnexpectedEOF
}

// errCutShort says that the content did not arrive in full.
var errCutShort = errors.New("connection lost in the content")

// ReadData reads the content of DATA and passes it to sink. It reads past
// go-smtp, whose own reader then finds an empty message. After limit octets it
// gives up. An error ends the conversation, since what arrives next would be
// content read as commands. doubtful tells that other servers may see the end of
// the content elsewhere (content.Undot).
func (c *Conn) ReadData(limit int64, sink func([]byte)) (doubtful bool, err error) {
	c.in.grow()
	defer func() { c.Socket.QuickAck(false) }()
	var u content.Undot
	for left := limit; left > 0; {
		used, end := u.Next(c.in.window(), sink)
		c.in.use(used)
		if end {
			c.feed = content.EndOfData
			return u.Doubtful, nil
		}
		left -= int64(used)
		c.Socket.QuickAck(left < limit || c.in.buffered() > 0)
		if err := c.fill(); err != nil {
			c.end(c.lastReply(err))
			return false, errCutShort
		}
	}
	c.end("552 5.3.4 " + content.ErrTooBig.Text)
	return false, errCutShort
}
