package relaytest

import (
	"crypto/tls"
	"time"
)

// Script is what a receiving host does at each step of a connection. The zero
// Script is a healthy modern host: STARTTLS with a certificate that every
// check passes, every usual keyword, 250 to everything. The comments name the
// rows of policy/rows.go that a field plays.
type Script struct {
	Greeting  Reply // A1 (Silence), A2, A3
	EHLO      Reply // in clear: A5, A6, A7
	HELO      Reply
	EHLOInTLS Reply // C8
	Mail      Reply
	Rcpt      Reply
	Rcpts     map[string]Reply // by recipient, lower case; before Rcpt
	Data      Reply            // to the DATA command
	End       Reply            // to the final dot, and to BDAT LAST
	Ends      map[string]Reply // by sender address, lower case; before End
	Rset      Reply
	Quit      Reply

	// Keywords of EHLO in clear, without STARTTLS; nil: DefaultKeywords.
	Keywords []string
	// KeywordsInTLS; nil: the same as Keywords (C9, C10, REQUIRETLS).
	KeywordsInTLS []string
	NoTLS         bool    // A4: STARTTLS is neither listed nor known
	StartTLSAs    string  // what is listed for STARTTLS: "starttls", "XXXXXXXA" (A8)
	StartTLS      Reply   // to the command: B1 to B4
	Inject        string  // B5: octets in clear, in one write with the 220
	TLS           TLS     // after the 220
	Resumed       *Script // from there on in a TLS session that was resumed (C8r); nil: the same
	// NeedTLS answers MAIL in clear with 530 (C12).
	NeedTLS bool

	// Surplus is what the host says beside its reply to a step, by the name of the
	// step: "ehlo", "ehlo_tls", "mail", "rcpt", "rset", "data" (after the 354), "bdat"
	// (after a chunk that is not the last) and "end".
	Surplus map[string]Surplus
	// Chunk is the reply to a BDAT that is not the last. ChunkAsCommands: CHUNKING
	// may be listed, yet BDAT is not known and its octets are taken for commands;
	// RefusedAsCommands: so they are while no recipient is accepted.
	Chunk                              Reply
	ChunkAsCommands, RefusedAsCommands bool

	// MaxMails per connection; MAIL is refused with 452 beyond it. 0: no limit.
	MaxMails int
	// MaxRefused RCPTs per connection; the next one gets 421. 0: no limit.
	MaxRefused int
	// HangUpAfter closes the connection, without a word, so long after a message
	// was taken. 0: never.
	HangUpAfter time.Duration

	MaxRcpt int // recipients beyond it get 452 4.5.3 (RFC 5321 §4.5.3.1.10); 0: no limit
	// BodyOver happens once more than BodyLimit octets of a body arrived; 0:
	// never. With Do Stall the host stops reading in mid-body.
	BodyLimit int
	BodyOver  Reply

	// MaxConnections at a time; the next gets TurnAway, by default 421 4.7.0. 0: no
	// limit.
	MaxConnections int
	TurnAway       Reply
	// Discard keeps counters only: no commands, no bodies. For load tests.
	Discard bool
}

// DefaultKeywords are what the zero Script lists beside STARTTLS.
var DefaultKeywords = []string{"PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES",
	"SMTPUTF8", "DSN", "CHUNKING"}

// Surplus is what a host says that it was not asked for.
type Surplus struct {
	Raw   string        // with its CRLFs
	Delay time.Duration // after the reply; 0: together with it
}

// Reply is what the host does at one step. The zero Reply is the normal
// answer.
type Reply struct {
	Code int    // 0: the normal one
	Text string // several lines are separated by \n; "": the normal text
	Raw  string // sent as it is, instead of Code and Text
	Do   Do
	// Delay passes before anything is sent; Pace between the octets of Drip,
	// default a second.
	Delay, Pace time.Duration
	Hangup      bool // close after the reply
	// Times is how often this host does so, counted over all its
	// connections; then it answers normally. 0: always.
	Times int
}

// Do is what happens in place of a plain answer.
type Do int

// What a host can do in place of a plain answer.
const (
	Answer  Do = iota
	Close      // hang up without a word
	Reset      // the same with a TCP RST
	Silence    // read on, say nothing
	Stall      // neither read nor write
	Endless    // a multi-line reply without end
	Drip       // the reply, one octet per Pace
)

// TLS is what happens after the 220 to STARTTLS. The zero TLS completes the
// handshake with a certificate for the host's name.
type TLS struct {
	Cert *Cert // nil: Cert{Names: the host's name}

	MinVersion, MaxVersion uint16 // as in crypto/tls; MaxVersion alone lowers MinVersion (C1)
	CipherSuites           []uint16
	Curves                 []tls.CurveID
	ClientCert             bool        // demand one (C5)
	NoTickets              bool        // no session resumption
	Config                 *tls.Config // instead of all of the above

	// Exactly one of the following replaces the handshake, once the
	// ClientHello is there.
	Do        Do     // Close, Reset (B6), Silence, Stall (B7)
	Garbage   string // B8: octets that are not TLS
	Alert     uint8  // C1 to C4: a fatal alert of this number
	Raw       []byte // recorded bytes of a server that crypto/tls cannot play
	Downgrade bool   // the canary of RFC 8446 §4.1.3, as when a middlebox lowers the version

	// HelloOver limits the replacement to ClientHello records longer than
	// this, in octets; WithSNI to hellos with a server name (C4),
	// WithTicket to those that offer a session ticket (C8r), and VersionOver to
	// those that offer no version up to this one.
	HelloOver   int
	WithSNI     bool
	WithTicket  bool
	VersionOver uint16
}

// fault reports whether t replaces the handshake for this hello.
func (t *TLS) fault(h Hello) bool {
	if t.Do == Answer && t.Garbage == "" && t.Alert == 0 && t.Raw == nil && !t.Downgrade {
		return false
	}
	return h.Size > t.HelloOver && (!t.WithSNI || h.ServerName != "") && (!t.WithTicket || h.Ticket) &&
		(t.VersionOver == 0 || h.MinVersion > t.VersionOver)
}

// config builds the server's side of the handshake for a host called name.
func (t *TLS) config(name string, ca *CA) (*tls.Config, error) {
	if t.Config != nil {
		return t.Config, nil
	}
	want := Cert{Names: []string{name}}
	if t.Cert != nil {
		want = *t.Cert
	}
	cert, err := ca.Issue(want)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		Certificates:           []tls.Certificate{cert},
		MinVersion:             t.MinVersion,
		MaxVersion:             t.MaxVersion,
		CipherSuites:           t.CipherSuites,
		CurvePreferences:       t.Curves,
		SessionTicketsDisabled: t.NoTickets,
	}
	if c.MinVersion == 0 && c.MaxVersion != 0 && c.MaxVersion < tls.VersionTLS12 {
		c.MinVersion = tls.VersionTLS10
	}
	if t.ClientCert {
		c.ClientAuth = tls.RequireAnyClientCert
	}
	return c, nil
}
