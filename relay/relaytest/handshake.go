package relaytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"net"
	"time"
)

// startTLS answers STARTTLS and does what the script has in store after it.
func (s *session) startTLS() bool {
	if s.script.NoTLS || s.inTLS {
		s.say("502 5.5.1 Command not implemented")
		return true
	}
	r := s.script.StartTLS
	if s.script.Inject != "" {
		r.Raw = r.wire("220 2.0.0 Ready to start TLS") + s.script.Inject
	}
	code, alive := s.reply("starttls", r, "220 2.0.0 Ready to start TLS")
	if !alive || code != 220 {
		return alive
	}
	if s.br.Buffered() > 0 {
		s.breach("octets in clear after STARTTLS")
	}
	s.tee.on = false
	if s.flush() != nil {
		return false
	}
	hello, record, ok := s.peekHello()
	if !ok {
		return false
	}
	if s.script.TLS.fault(hello) {
		if !s.script.TLS.Downgrade {
			s.sabotage()
			return false
		}
		if hello.versions > 0 {
			record[hello.versions] = 0xfa // an extension nobody knows
		}
	}
	return s.handshake()
}

// peekHello waits for the client's first record. A fault that came before it
// would race with the client's check for octets after the 220 (row B5).
func (s *session) peekHello() (h Hello, record []byte, ok bool) {
	head, err := s.br.Peek(5)
	if err != nil {
		return h, nil, false
	}
	n := int(head[3])<<8 | int(head[4])
	record, err = s.br.Peek(5 + n)
	if err != nil {
		return h, nil, false
	}
	h = parseHello(record)
	s.h.mu.Lock()
	s.rec.Hello = &h
	s.h.mu.Unlock()
	return h, record, true
}

// sabotage plays the script's replacement for a handshake.
func (s *session) sabotage() {
	t := &s.script.TLS
	s.br.Discard(s.br.Buffered())
	switch {
	case t.Alert != 0:
		s.raw.Write([]byte{21, 3, 3, 0, 2, 2, t.Alert}) // alert, fatal
		s.hangUp()
	case t.Raw != nil:
		s.raw.Write(t.Raw)
		s.discardAll()
	case t.Garbage != "":
		s.raw.Write([]byte(t.Garbage))
		s.discardAll()
	default:
		s.odd(Reply{Do: t.Do}, "")
	}
}

func (s *session) handshake() bool {
	// crypto/tls reads what is buffered first: the ClientHello.
	conn := tls.Server(&buffered{s.raw, s.br}, s.act.tls)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := conn.HandshakeContext(ctx)
	s.h.mu.Lock()
	if err != nil {
		s.rec.HandshakeErr = err
	} else {
		state := conn.ConnectionState()
		s.rec.TLS = &state
		s.h.handshakes.Add(1)
		if state.DidResume {
			s.h.resumed.Add(1)
		}
	}
	s.h.signal()
	s.h.mu.Unlock()
	if err != nil {
		return false
	}
	if s.script.Resumed != nil && conn.ConnectionState().DidResume {
		s.script = s.script.Resumed
	}
	s.conn, s.inTLS = conn, true
	s.br = bufio.NewReaderSize(conn, readBuffer)
	// RFC 3207 §4.2: nothing from before is to be remembered.
	s.reset()
	s.helo, s.listed, s.pipelined = "", nil, false
	return true
}

// buffered is a connection some of whose octets were read ahead.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
