//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// receiver is one receiving host. It accepts everything and notes only the time. It costs as
// little as it can, because it shares the machine with the relay.
type receiver struct {
	sink  *sink
	name  string
	tls   *tls.Config // nil: no STARTTLS
	delay time.Duration
	pit   string // a tarpit of this kind
}

// conversation is one connection to a receiver.
type conversation struct {
	*receiver
	conn   net.Conn
	br     *bufio.Reader
	out    []byte
	w      io.Writer // conn, or a delay line before it
	line   *delayLine
	inTLS  bool
	tokens []int64 // of the recipients of this transaction
	quit   bool
}

const receiveBuffer = 32 << 10

func (r *receiver) serve(raw net.Conn) {
	defer raw.Close()
	if r.pit != "" {
		r.trap(raw)
		return
	}
	c := &conversation{receiver: r}
	c.over(raw)
	defer func() {
		if c.line != nil {
			c.line.close()
		}
	}()
	c.say("220 " + r.name + " ESMTP")
	for !c.quit {
		line, err := c.readLine()
		if err != nil {
			return
		}
		if err := c.command(line); err != nil {
			return
		}
	}
	c.flush()
}

// over continues the conversation over another connection.
func (c *conversation) over(conn net.Conn) {
	if c.line != nil {
		c.line.close()
		c.line = nil
	}
	c.conn, c.w = conn, conn
	c.br = bufio.NewReaderSize(conn, receiveBuffer)
	if c.delay > 0 {
		c.line = newDelayLine(c.delay, conn)
		c.w = c.line
	}
}

// trap never answers a client: it says nothing at all, or one octet a second, until the
// client gives up.
func (r *receiver) trap(raw net.Conn) {
	if r.pit == pitSilent {
		io.Copy(io.Discard, raw)
		return
	}
	for {
		for _, b := range []byte("220-" + r.name + " is thinking\r\n") {
			if _, err := raw.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(time.Second)
		}
	}
}

func (c *conversation) say(text string) { c.out = append(append(c.out, text...), "\r\n"...) }

func (c *conversation) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.w.Write(c.out)
	c.out = c.out[:0]
	return err
}

func (c *conversation) readLine() ([]byte, error) {
	if c.br.Buffered() == 0 {
		if err := c.flush(); err != nil {
			return nil, err
		}
	}
	b, err := c.br.ReadSlice('\n')
	return bytes.TrimRight(b, "\r\n"), err
}

// command obeys one command; an error ends the connection.
func (c *conversation) command(line []byte) error {
	verb, arg, _ := bytes.Cut(line, []byte(" "))
	switch strings.ToUpper(string(verb)) {
	case "MAIL":
		c.say("250 2.1.0 Ok")
	case "RCPT":
		return c.rcpt(arg)
	case "DATA":
		c.say("354 Go on")
		if err := errors.Join(c.flush(), c.readData()); err != nil {
			return err
		}
		c.taken()
	case "BDAT":
		return c.bdat(string(arg))
	case "EHLO":
		c.ehlo()
	case "HELO", "NOOP":
		c.say("250 Ok")
	case "RSET":
		c.tokens = c.tokens[:0]
		c.say("250 2.0.0 Ok")
	case "STARTTLS":
		return c.startTLS()
	case "QUIT":
		c.say("221 2.0.0 Bye")
		c.quit = true
	default:
		c.say("500 5.5.2 Command unrecognized")
	}
	return nil
}

func (c *conversation) ehlo() {
	text := "250-" + c.name + "\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250-DSN\r\n"
	if c.tls != nil && !c.inTLS {
		text += "250-STARTTLS\r\n"
	}
	c.say(text + "250 CHUNKING")
}

// rcpt reads the token of TO:<t123@domain>.
func (c *conversation) rcpt(arg []byte) error {
	_, path, _ := bytes.Cut(arg, []byte("<t"))
	digits, _, ok := bytes.Cut(path, []byte("@"))
	token, err := strconv.ParseInt(string(digits), 10, 64)
	if !ok || err != nil {
		c.say("550 5.1.1 No such user")
		return nil
	}
	c.tokens = append(c.tokens, token)
	c.say("250 2.1.5 Ok")
	return nil
}

var endOfData = []byte("\r\n.\r\n")

// readData reads up to the final dot.
func (c *conversation) readData() error {
	if b, err := c.br.Peek(3); err != nil {
		return err
	} else if bytes.Equal(b, endOfData[2:]) {
		c.br.Discard(3)
		return nil
	}
	for {
		if _, err := c.br.Peek(len(endOfData)); err != nil {
			return err
		}
		b, _ := c.br.Peek(c.br.Buffered())
		if i := bytes.Index(b, endOfData); i >= 0 {
			c.sink.octets.Add(int64(i + 2))
			c.br.Discard(i + len(endOfData))
			return nil
		}
		n := len(b) - len(endOfData) + 1 // the end may have begun
		c.sink.octets.Add(int64(n))
		c.br.Discard(n)
	}
}

func (c *conversation) bdat(arg string) error {
	size, last, _ := strings.Cut(arg, " ")
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 {
		return errors.New("BDAT without a size")
	}
	if _, err := c.br.Discard(n); err != nil {
		return err
	}
	c.sink.octets.Add(int64(n))
	if strings.EqualFold(last, "LAST") {
		c.taken()
	} else {
		c.say("250 2.0.0 Ok")
	}
	return nil
}

// taken notes the arrival and says so.
func (c *conversation) taken() {
	c.sink.arrived(c.tokens, time.Now().UnixNano())
	c.tokens = c.tokens[:0]
	c.say("250 2.0.0 Ok: taken")
}

func (c *conversation) startTLS() error {
	if c.tls == nil || c.inTLS {
		c.say("502 5.5.1 Command not implemented")
		return nil
	}
	c.say("220 2.0.0 Ready to start TLS")
	if err := c.flush(); err != nil {
		return err
	}
	if c.line != nil {
		c.line.drain()
	}
	if c.br.Buffered() > 0 {
		return errors.New("octets in clear after STARTTLS")
	}
	conn := tls.Server(c.conn, c.tls)
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if err := conn.Handshake(); err != nil {
		return err
	}
	conn.SetDeadline(time.Time{})
	c.sink.handshakes.Add(1)
	if conn.ConnectionState().DidResume {
		c.sink.resumed.Add(1)
	}
	c.inTLS = true
	c.over(conn)
	return nil
}
