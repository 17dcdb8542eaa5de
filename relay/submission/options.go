package submission

import (
	"context"
	"crypto/tls"
	"net/netip"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// Options is what an operator sets. The zero value listens nowhere, demands
// TLS for AUTH and trusts nobody.
type Options struct {
	Hostname  string   // in greeting, EHLO, Received and Message-ID
	Listen    []string // addresses in clear, with STARTTLS if TLS is set
	ListenTLS []string // addresses with implicit TLS (RFC 8314)

	TLS                *tls.Config    // nil: no STARTTLS; never below TLS 1.2
	AllowPlaintextAuth bool           // AUTH without TLS
	Trusted            []netip.Prefix // may submit without AUTH, for the parent account

	// RefuseBareNewlines refuses content with a CR or an LF that stands alone; else
	// it is mended (relay/submission/content/newlines.go).
	RefuseBareNewlines bool

	MaxMessageBytes int64 // of content with its line ends in order; 0: 30 MiB
	MaxRecipients   int   // of one message; 0: 1000
	MaxConnections  int   // 0: 10,000
	MaxPerIP        int   // connections from one address, or one /64 of IPv6; 0: no limit

	// Admit returns an error if an account may not begin another message. So its
	// client does not send what Intake will refuse. nil: every account may.
	Admit func(account.ID) error

	MaxStrangersPerIP int            // those of MaxPerIP that have not logged in and are not trusted; 0: no limit
	LoginTimeout      time.Duration  // from the greeting to a login, and less while places run out; 0: 1 minute
	ProxyProtocol     []netip.Prefix // balancers whose PROXY header is believed, and required

	AuthFailuresPerMinute int           // per source address; beyond it they are answered slowly and end the connection; 0: 30
	IdleTimeout           time.Duration // for a command, and between reads of content; 0: 5 minutes
	DrainTimeout          time.Duration // for transactions in progress when stopping; 0: 30 seconds

	slowAnswer    time.Duration // 0: 3 seconds
	contentMemory int64         // for what is being read, in octets; 0: 256 MiB

	lookEvery time.Duration // after keys and accounts that have ended; 0: half a second
	workTime  time.Duration // that a connection is left to its work; 0: 30 seconds
}

func (o Options) withDefaults() Options {
	orDefault(&o.Hostname, "localhost")
	orDefault(&o.MaxMessageBytes, 30<<20)
	orDefault(&o.MaxRecipients, 1000)
	orDefault(&o.MaxConnections, 10_000)
	orDefault(&o.AuthFailuresPerMinute, 30)
	orDefault(&o.IdleTimeout, 5*time.Minute)
	orDefault(&o.DrainTimeout, 30*time.Second)
	orDefault(&o.LoginTimeout, time.Minute)
	orDefault(&o.slowAnswer, 3*time.Second)
	orDefault(&o.contentMemory, 256<<20)
	orDefault(&o.lookEvery, 500*time.Millisecond)
	orDefault(&o.workTime, 30*time.Second)
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.MinVersion = max(o.TLS.MinVersion, tls.VersionTLS12)
	}
	return o
}

func orDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// Intake takes messages; the queue implements it.
type Intake interface {
	// NewDraft begins a body of an account's message.
	NewDraft(account.ID) relay.Draft
	// Accept makes a message durable: when it returns nil, the message is on
	// stable storage. It ends the draft, also with an error.
	Accept(ctx context.Context, m relay.Message, rcpts []relay.Recipient, body relay.Draft) error
}

// Accounts tells which account a key belongs to.
type Accounts = account.Store
