package handshake

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay/deliver/peer"
)

// Profile is everything that shapes a ClientHello but the server name. Session
// tickets are never shared between profiles: a session that one profile agreed on may
// be one that another would not.
type Profile struct {
	wide    bool // opportunistic: whatever encrypts
	floor   policy.Version
	forward bool // no RSA key exchange
	hello   policy.Hello
}

// ProfileFor gives the profile for a decision and a kind of ClientHello. Where no
// demand names a version, opportunistic is the floor.
func ProfileFor(d policy.Decision, hello policy.Hello, opportunistic policy.Version) Profile {
	p := Profile{wide: d.Opportunistic(), floor: d.Floor(), hello: hello}
	if p.floor == 0 {
		p.floor = opportunistic
	}
	for _, x := range d.List {
		p.forward = p.forward || x.Requirement == policy.ForwardSecret
	}
	if hello == policy.ProbeHello {
		p.floor = policy.TLS10 // the suites stay: what is asked about is the version
	}
	return p
}

// The suites of TLS 1.2 and below. Go ignores their order and adds those of
// 1.3 itself. They are set in code because Go's defaults change with its releases.
var (
	forwardSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	}
	rsaSuites = []uint16{
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA, tls.TLS_RSA_WITH_AES_256_CBC_SHA,
	}
	wideSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
)

// smallCurves are those without the hybrid ones, whose key shares make a
// ClientHello of more than one segment.
var smallCurves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// OnlyWide reports whether a suite is offered where nothing is demanded, and
// nowhere else.
func OnlyWide(cipher string) bool { return slices.Contains(wideNames, cipher) }

// wideNames are the names of wideSuites: crypto/tls writes a list of all suites
// for every name it is asked for.
var wideNames = func() (names []string) {
	for _, id := range wideSuites {
		names = append(names, tls.CipherSuiteName(id))
	}
	return names
}()

// config builds the part of a tls.Config that all connections of p share.
func (p Profile) config() *tls.Config {
	suites := forwardSuites
	if !p.forward {
		suites = append(suites[:len(suites):len(suites)], rsaSuites...)
	}
	if p.wide {
		suites = append(suites[:len(suites):len(suites)], wideSuites...)
	}
	c := &tls.Config{
		InsecureSkipVerify: true, // policy judges after the handshake, all faults at once
		MinVersion:         uint16(p.floor),
		CipherSuites:       suites,
		ClientSessionCache: tls.NewLRUClientSessionCache(maxTickets),
		// One record per write: a message of ten kilobytes is one packet
		// train, not eight system calls.
		DynamicRecordSizingDisabled: true,
	}
	switch p.hello {
	case policy.CompatHello:
		// It fits in one segment. Unless 1.3 is demanded it has nothing that a
		// middlebox from before TLS 1.3 does not know.
		c.CurvePreferences = smallCurves
		if p.floor <= policy.TLS12 {
			c.MaxVersion = tls.VersionTLS12
		}
	case policy.ProbeHello:
		c.CurvePreferences, c.ClientSessionCache = smallCurves, nil
	}
	return c
}

// ForwardSecret reports whether a suite exchanges ephemeral keys. TLS 1.3 has
// no other.
func ForwardSecret(version, suite uint16) bool {
	return version >= tls.VersionTLS13 || !strings.HasPrefix(tls.CipherSuiteName(suite), "TLS_RSA_")
}

// Endpoint is what a session ticket is bound to: both ends of a connection, and the
// server name.
type Endpoint struct {
	ServerName string // the server name in the ClientHello
	Addr       netip.AddrPort
	Source     netip.Addr // zero: the system's choice
}

// Profiles makes the tls.Config of every connection. It remembers which addresses need the
// compat ClientHello, and what became of session tickets. Its methods are safe for
// concurrent use.
type Profiles struct {
	mu      sync.Mutex // of configs and of the tickets in them
	configs map[Profile]*tls.Config

	Compat    *peer.Recent // only the compat ClientHello works
	NoTickets *peer.Recent // a session failed that had offered a ticket
	Resumes   *peer.Recent // a resumed session has come to MAIL
}

// compatFor is how long an address gets the compat ClientHello first.
const compatFor = 24 * time.Hour

// NewProfiles makes one that remembers nothing yet.
func NewProfiles() *Profiles {
	return &Profiles{
		configs: make(map[Profile]*tls.Config), Compat: peer.NewRecent(compatFor),
		NoTickets: peer.NewRecent(noTicketsFor), Resumes: peer.NewRecent(resumesFor),
	}
}

// Config gives the tls.Config of one connection, and its tickets. Without offer they are
// kept but not offered; where they are nil, they are neither.
func (ps *Profiles) Config(p Profile, k Endpoint, offer bool) (*tls.Config, *Tickets) {
	ps.mu.Lock()
	base := ps.configs[p]
	if base == nil {
		base = p.config()
		ps.configs[p] = base
	}
	ps.mu.Unlock()
	c := base.Clone()
	if p.hello != policy.NoSNIHello {
		c.ServerName = k.ServerName
	}
	if c.ClientSessionCache == nil || ps.NoTickets.Has(k.Addr) {
		c.ClientSessionCache = nil
		return c, nil
	}
	t := &Tickets{ClientSessionCache: base.ClientSessionCache, h: ps, addr: k.Addr, prefix: ticketPrefix(k), mute: !offer}
	c.ClientSessionCache = t
	return c, t
}

// First gives the ClientHello to begin with at an address.
func (p *Profiles) First(addr netip.AddrPort) policy.Hello {
	if p.Compat.Has(addr) {
		return policy.CompatHello
	}
	return policy.FullHello
}
