package wire

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"tlsrelay/relay/relaytest"
	"tlsrelay/relay/unread"
)

// tcpPair is a connection over loopback, both ends of it.
func tcpPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// corked gathers writes until it is let go.
type corked struct {
	net.Conn
	cork bool
	held []byte
}

func (c *corked) Write(b []byte) (int, error) {
	if c.cork {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// insideTLS is a session over TLS and the host's end of it.
func insideTLS(t *testing.T) (c *Conn, host *tls.Conn, out *corked) {
	t.Helper()
	near, far := tcpPair(t)
	cert, err := relaytest.Start(t).CA.Issue(relaytest.Cert{Names: []string{"mx1.example.test"}})
	if err != nil {
		t.Fatal(err)
	}
	out = &corked{Conn: far}
	host = tls.Server(out, &tls.Config{Certificates: []tls.Certificate{cert}, SessionTicketsDisabled: true})
	shaken := make(chan error, 1)
	go func() { shaken <- host.Handshake() }()
	inside := tls.Client(near, &tls.Config{InsecureSkipVerify: true})
	if err := errors.Join(inside.Handshake(), <-shaken); err != nil {
		t.Fatal(err)
	}
	c = NewConn(near, 5*time.Second)
	c.secure(inside)
	return c, host, out
}

// TestPendingInsideTLS: words too many are noticed also where they came with
// the last reply, in a TLS record of their own that nobody has opened yet.
func TestPendingInsideTLS(t *testing.T) {
	c, host, out := insideTLS(t)
	say := func(words ...string) {
		out.cork = true
		for _, w := range words {
			host.Write([]byte(w))
		}
		out.Conn.Write(out.held)
		out.cork, out.held = false, nil
		if _, err := c.Read(c.Timeout); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // looking spoils nothing
		say("250 taken\r\n")
		if c.Pending() {
			t.Error("nothing was said, and yet something is pending")
		}
	}
	say("250 taken\r\n", "250 and this\r\n")
	if !c.Pending() {
		t.Error("the next transaction would take its answers one too early")
	}
}

// late is a connection whose user comes to read when the time for it is over.
type late struct{ *net.TCPConn }

func (l late) SetReadDeadline(at time.Time) error {
	err := l.TCPConn.SetReadDeadline(at)
	time.Sleep(time.Until(at))
	return err
}

// TestPendingSeenLate: a host that hung up is not taken for a silent one where
// the processor was away for the moment that was meant for reading it.
func TestPendingSeenLate(t *testing.T) {
	c, _, out := insideTLS(t)
	out.Close()
	for start := time.Now(); !unread.Has(c.Raw); runtime.Gosched() {
		if time.Since(start) > relaytest.Patience {
			t.Fatal("the end does not arrive")
		}
	}
	c.Raw = late{c.Raw.(*net.TCPConn)}
	if !c.Pending() {
		t.Error("the next message would go to nobody")
	}
}
