package deliver

import (
	"cmp"
	"context"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/resolve"
)

// Options are the settings of an [Engine]. Every zero field means its default.
type Options struct {
	Hostname        string         // name in EHLO; one that is not fully qualified: an address literal
	Port            int            // for addresses of the route that have none; default 25
	Roots           *x509.CertPool // trusted roots; nil: the system's
	SourceAddresses []netip.Addr   // local addresses to dial from; none: the system's choice

	// OpportunisticMinVersion is the floor where no demand names one; default 1.0.
	OpportunisticMinVersion policy.Version
	Rules                   policy.Rules // default 24 h, 15 min

	ConnectTimeout   time.Duration // default 30 s
	HandshakeTimeout time.Duration // default 30 s
	CommandTimeout   time.Duration // for each reply and each chunk written; default 5 min
	IdleTimeout      time.Duration // how long an idle session is kept; default 10 s

	MaxConnections              int // all hosts together; default 1000
	MaxPerHost                  int // default 20
	MaxRecipientsPerTransaction int // default 100
	// MaxMessages is how many messages one connection carries; 0: as many as the
	// host allows, by what it says or has shown.
	MaxMessages int
	// IgnoreKeywords are EHLO keywords not to believe, in capitals, by the name of
	// the host, "*.domain" for the names of any depth below it, or "*" for all.
	IgnoreKeywords map[string][]string
}

func (o Options) withDefaults() Options {
	o.Port = cmp.Or(o.Port, 25)
	o.OpportunisticMinVersion = cmp.Or(o.OpportunisticMinVersion, policy.TLS10)
	o.Rules.Window = cmp.Or(o.Rules.Window, 24*time.Hour)
	o.Rules.ConfirmAfter = cmp.Or(o.Rules.ConfirmAfter, 15*time.Minute)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, 30*time.Second)
	o.HandshakeTimeout = cmp.Or(o.HandshakeTimeout, 30*time.Second)
	o.CommandTimeout = cmp.Or(o.CommandTimeout, 5*time.Minute)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, 10*time.Second)
	o.MaxConnections = cmp.Or(o.MaxConnections, 1000)
	o.MaxPerHost = cmp.Or(o.MaxPerHost, 20)
	o.MaxRecipientsPerTransaction = cmp.Or(o.MaxRecipientsPerTransaction, 100)
	return o
}

// ignored gives the keywords of EHLO not to believe of a host.
func (o Options) ignored(host string) []string {
	if len(o.IgnoreKeywords) == 0 {
		return nil
	}
	words := slices.Concat(o.IgnoreKeywords["*"], o.IgnoreKeywords[host])
	for rest := host; ; {
		_, above, found := strings.Cut(rest, ".")
		if !found {
			return words
		}
		words = append(words, o.IgnoreKeywords["*."+above]...)
		rest = above
	}
}

// Router says where a destination's mail goes. relay/resolve implements it.
type Router interface {
	// Route gives the hosts of a destination (relay.Address.Destination).
	Route(ctx context.Context, destination string) (resolve.Route, *relay.Failure)
}

// Job is one attempt to make.
type Job struct {
	Message  relay.Message
	Delivery relay.Delivery
	Sender   policy.Sender // demands on the sender's side; REQUIRETLS of Message is added
	Body     relay.Body    // read, not closed
	// Opening ends when no connection may be opened any more. The attempt then closes
	// one that has not come to MAIL, and goes on with one that has. nil: never.
	Opening context.Context
	// Patience bounds the wait for a connection to a host, or an address, that has all
	// the connections it may have. After it the attempt is cut short
	// (relay.Result.Crowded). 0: no bound.
	Patience time.Duration
	// Changed reports whether the demands are no longer those of Sender. The attempt
	// asks while it waits, and ends if they are not. nil: nothing changes.
	Changed func(*Job) bool
}
