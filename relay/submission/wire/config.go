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
	IdleTimeout        time.Duration // for a whole command line, and at most for a handshake

	// Adopt gives the connection that STARTTLS has made to go-smtp. It returns
	// false when the server is stopping.
	Adopt func(*Conn) bool
	// Closed is called when go-smtp is done with a connection.
	Closed func(*Conn)
	// Handshake is called with the TLS version of a finished handshake, and
	// with 0 for one that failed.
	Handshake func(version uint16)
}

// Socket is a client's connection, below TLS. Its owner limits what the client
// may do, and can end the conversation from another goroutine. Interrupt is safe
// for concurrent use; the goroutine of the conversation calls the rest.
type Socket interface {
	net.Conn
	// Command counts a command. It returns the reply that ends the
	// conversation, or "" if the client may go on.
	Command() (parting string)
	// Parting is the reply for a client whose conversation the owner has ended,
	// or "" if the owner has not.
	Parting() string
	// EndReads sets one deadline for all reads. The zero time gives each read
	// a timeout of its own again.
	EndReads(at time.Time)
	// Interrupt ends the read that waits, and all later ones.
	Interrupt()
	// Idle tells whether the client is idle: the next command is awaited, and
	// no transaction is open.
	Idle(bool)
	// QuickAck tells whether reads acknowledge at once what they receive. They
	// shall while a part of a line or of content is here, because no reply will
	// carry the acknowledgement before the rest has come.
	QuickAck(bool)
}
