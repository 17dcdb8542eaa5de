package wire

import (
	"crypto/tls"
	"net"
	"time"
)

// Config is what all connections of one server share.
type Config struct {
	Hostname           string        // in greeting, EHLO and replies
	TLS                *tls.Config   // nil: no STARTTLS
	AllowPlaintextAuth bool          // AUTH is offered without TLS
	MaxMessageBytes    int64         // announced by SIZE (RFC 1870)
	IdleTimeout        time.Duration // for a whole command line, and for a handshake

	// Adopt gives go-smtp the connection that STARTTLS has made; false: the
	// server is stopping.
	Adopt func(*Conn) bool
	// Closed tells that go-smtp is done with a connection.
	Closed func(*Conn)
	// Handshake tells the TLS version of a finished handshake; 0: it failed.
	Handshake func(version uint16)
}

// Socket is a client's connection, below TLS. Its owner bounds what the client
// may do, and can end the conversation from outside. Only Interrupt is called
// beside the goroutine that reads.
type Socket interface {
	net.Conn
	// Command counts a command. parting is the reply that ends the
	// conversation, "" where it goes on.
	Command() (parting string)
	// Bound fixes when all reads end, whatever trickles in until then. A zero
	// time gives each read its own idle time again.
	Bound(until time.Time)
	// Rest notes whether the client is idle: a command is awaited, and no
	// transaction is open.
	Rest(bool)
	// Eager notes whether what is awaited has come in part, and no reply is due
	// before the rest.
	Eager(bool)
	// Interrupt ends the read that is waiting, and all later ones.
	Interrupt()
	// Farewell is the reply that tells a client why its conversation was ended
	// from outside, "" where it was not.
	Farewell() string
}
