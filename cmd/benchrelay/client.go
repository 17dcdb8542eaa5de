//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strconv"
	"time"
)

// client is one submitting connection. It does by hand the little that is needed of a mail
// library, because it shares the machine with the relay.
type client struct {
	conn    net.Conn
	br      *bufio.Reader
	out     []byte
	body    []byte // with the final dot
	domains []string
}

// patience bounds every step of the conversation.
const patience = time.Minute

func dial(s OpenSpec, body []byte) (c *client, err error) {
	conn, err := net.DialTimeout("tcp", s.Addr, patience)
	if err != nil {
		return nil, err
	}
	c = &client{conn: conn, br: bufio.NewReader(conn), body: body, domains: s.Domains}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if err = c.expect(220); err != nil {
		return nil, err
	}
	if err = c.command("EHLO generator.example", 250); err != nil {
		return nil, err
	}
	if s.TLS {
		if err = c.startTLS(); err != nil {
			return nil, err
		}
	}
	if s.Secret != "" {
		ir := base64.StdEncoding.EncodeToString([]byte("\x00apikey\x00" + s.Secret))
		err = c.command("AUTH PLAIN "+ir, 235)
	}
	return c, err
}

func (c *client) startTLS() error {
	if err := c.command("STARTTLS", 220); err != nil {
		return err
	}
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true}) // self-signed; the time is what counts
	conn.SetDeadline(time.Now().Add(patience))
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.conn, c.br = conn, bufio.NewReader(conn)
	return c.command("EHLO generator.example", 250)
}

func (c *client) command(line string, code int) error {
	c.out = append(append(c.out[:0], line...), "\r\n"...)
	if err := c.flush(); err != nil {
		return err
	}
	return c.expect(code)
}

func (c *client) flush() error {
	c.conn.SetDeadline(time.Now().Add(patience))
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// expect reads one reply.
func (c *client) expect(code int) error {
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) < 4 {
			return fmt.Errorf("bad reply %q", line)
		}
		if line[3] == '-' {
			continue
		}
		if got, _ := strconv.Atoi(string(line[:3])); got != code {
			return fmt.Errorf("refused: %s", bytes.TrimSpace(line))
		}
		return nil
	}
}

// send submits one message with pipelining, as RFC 2920 has it for DATA: the
// envelope in one piece, then the content.
func (c *client) send(token int64) error {
	c.out = append(c.out, "MAIL FROM:<app@generator.example>\r\nRCPT TO:<t"...)
	c.out = strconv.AppendInt(c.out, token, 10)
	c.out = append(append(c.out, '@'), c.domains[int(token)%len(c.domains)]...)
	c.out = append(c.out, ">\r\n"...)
	c.out = append(c.out, "DATA\r\n"...)
	if err := c.round(250, 250, 354); err != nil {
		return err
	}
	c.out = append(c.out, c.body...)
	return c.round(250)
}

// round sends what is gathered and reads the replies to all of it.
func (c *client) round(codes ...int) error {
	if err := c.flush(); err != nil {
		return err
	}
	for _, code := range codes {
		if err := c.expect(code); err != nil {
			return err
		}
	}
	return nil
}

// message makes a message of size octets, CRLFs included, and the final dot
// after them.
func message(size int) []byte {
	b := []byte("From: Generator <app@generator.example>\r\nTo: Somebody <somebody@one.example>\r\n" +
		"Subject: Your order has shipped\r\nDate: Mon, 02 Nov 2026 10:00:00 +0000\r\n" +
		"Message-ID: <20261102100000.1@generator.example>\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: text/plain; charset=us-ascii\r\n\r\n")
	const text = "The quick brown fox jumps over the lazy dog, and the lazy dog dreams of it."
	for len(b)+len(text)+2 <= size {
		b = append(append(b, text...), "\r\n"...)
	}
	if rest := size - len(b); rest >= 2 {
		b = append(append(b, text[:rest-2]...), "\r\n"...)
	}
	return append(b, ".\r\n"...)
}
