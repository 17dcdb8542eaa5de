package deliver

import (
	"crypto/tls"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"tlsrelay/policy"
)

// profile is everything that shapes a ClientHello but the server name. Session
// tickets are never shared between profiles (tls-policy §10.6).
type profile struct {
	wide    bool // opportunistic: whatever encrypts
	floor   policy.Version
	forward bool // no RSA key exchange
	hello   policy.Hello
}

// profileFor gives the profile of §10.3 for a decision. Where no demand names
// a version, the operator's floor for opportunistic TLS stands.
func profileFor(d policy.Decision, m manner, opportunistic policy.Version) profile {
	p := profile{wide: d.Opportunistic(), floor: d.Floor(), hello: m.hello}
	if p.floor == 0 {
		p.floor = opportunistic
	}
	for _, x := range d.Demands {
		p.forward = p.forward || x.Requirement == policy.ForwardSecret
	}
	return p
}

// The suites of TLS 1.2 and below. Go ignores their order and adds those of
// 1.3 itself. They are set in code because Go's defaults move (§10.1).
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

// onlyWide reports whether a suite is offered where nothing is demanded, and
// nowhere else.
func onlyWide(cipher string) bool { return slices.Contains(wideNames, cipher) }

// wideNames are the names of wideSuites: crypto/tls writes a list of all suites
// for every name it is asked for.
var wideNames = func() (names []string) {
	for _, id := range wideSuites {
		names = append(names, tls.CipherSuiteName(id))
	}
	return names
}()

// config builds the part of a tls.Config that all connections of p share.
func (p profile) config() *tls.Config {
	suites := forwardSuites
	if !p.forward {
		suites = append(suites[:len(suites):len(suites)], rsaSuites...)
	}
	if p.wide {
		suites = append(suites[:len(suites):len(suites)], wideSuites...)
	}
	c := &tls.Config{
		InsecureSkipVerify: true, // judged after the handshake, by policy (§10.5)
		MinVersion:         uint16(p.floor),
		CipherSuites:       suites,
		ClientSessionCache: tls.NewLRUClientSessionCache(maxTickets),
		// One record per write: a message of ten kilobytes is one packet
		// train, not eight system calls.
		DynamicRecordSizingDisabled: true,
	}
	if p.hello == policy.CompatHello {
		// One segment, and for most floors nothing that a box from before
		// 2018 has not seen (§10.4).
		c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
		if p.floor <= policy.TLS12 {
			c.MaxVersion = tls.VersionTLS12
		}
	}
	return c
}

// Bounds of the tickets kept for one profile: how many, and the octets of each.
const (
	maxTickets = 2048
	maxTicket  = 16 << 10
)

// forwardSecret reports whether a suite exchanges ephemeral keys. TLS 1.3 has
// no other.
func forwardSecret(version, suite uint16) bool {
	return version >= tls.VersionTLS13 || !strings.HasPrefix(tls.CipherSuiteName(suite), "TLS_RSA_")
}

// ticketCache keys tickets by address, source and profile beside the server
// name, so that neither another host of the same name nor another source
// address can be linked through them.
type ticketCache struct {
	tls.ClientSessionCache
	prefix string
}

func (c ticketCache) Get(key string) (*tls.ClientSessionState, bool) {
	return c.ClientSessionCache.Get(c.prefix + key)
}

// Put implements tls.ClientSessionCache. With a ticket the host's certificates are
// kept, and a host may have as many of them as it likes: what comes to more than
// maxTicket octets is not worth it.
func (c ticketCache) Put(key string, s *tls.ClientSessionState) {
	if s == nil || ticketSize(s) <= maxTicket {
		c.ClientSessionCache.Put(c.prefix+key, s)
	}
}

func ticketSize(s *tls.ClientSessionState) int {
	ticket, state, err := s.ResumptionState()
	if err != nil || state == nil {
		return maxTicket + 1
	}
	encoded, err := state.Bytes()
	if err != nil {
		return maxTicket + 1
	}
	return len(ticket) + len(encoded)
}

// hellos makes the tls.Config of every connection and remembers which
// addresses need the compat hello.
type hellos struct {
	mu      sync.Mutex
	configs map[profile]*tls.Config
	compat  map[netip.AddrPort]time.Time // until when
}

// Compat addresses are remembered for a day; so many of them at most.
const (
	compatFor = 24 * time.Hour
	maxCompat = 10000
)

// config gives a fresh tls.Config for one connection.
func (h *hellos) config(p profile, k poolKey) *tls.Config {
	h.mu.Lock()
	base := h.configs[p]
	if base == nil {
		if h.configs == nil {
			h.configs = make(map[profile]*tls.Config)
		}
		base = p.config()
		h.configs[p] = base
	}
	h.mu.Unlock()
	c := base.Clone()
	c.ClientSessionCache = ticketCache{base.ClientSessionCache, k.addr.String() + " " + k.source.String() + " "}
	if p.hello != policy.NoSNIHello {
		c.ServerName = k.sni
	}
	return c
}

// first gives the hello to begin with at an address.
func (h *hellos) first(addr netip.AddrPort) policy.Hello {
	h.mu.Lock()
	defer h.mu.Unlock()
	until, ok := h.compat[addr]
	switch {
	case !ok:
		return policy.FullHello
	case time.Now().After(until):
		delete(h.compat, addr)
		return policy.FullHello
	}
	return policy.CompatHello
}

// remember notes that only the compat hello worked at an address.
func (h *hellos) remember(addr netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.compat == nil {
		h.compat = make(map[netip.AddrPort]time.Time)
	}
	if len(h.compat) >= maxCompat {
		clear(h.compat) // forgetting costs one connection each
	}
	h.compat[addr] = time.Now().Add(compatFor)
}

// forget drops what is remembered of an address.
func (h *hellos) forget(addr netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.compat, addr)
}
