package handshake

import (
	"crypto/tls"
	"net/netip"
	"time"

	"tlsrelay/policy"
)

// Session tickets save a host and us the costly part of a handshake. A ticket may
// be older than the host's configuration, though, and there are hosts whose
// resumed sessions die. So what fails where a ticket was offered is tried once
// more without one before anything is concluded (row C8r), and an address where
// that happened is offered none for a day.

// Bounds of the tickets kept for one profile: how many, and the octets of each.
const (
	maxTickets = 2048
	maxTicket  = 16 << 10
)

// Whether an address can resume sessions is remembered for a day, for better and
// for worse.
const (
	noTicketsFor = 24 * time.Hour
	resumesFor   = 24 * time.Hour
)

// Tickets is what one connection sees of the tickets of its profile. It keys
// them by address, source and profile beside the server name, so that neither
// another host of the same name nor another source address can be linked through
// them. A ticket that is offered is taken out: none of TLS 1.3 is offered twice
// (RFC 8446 §C.4), and none that failed ever comes back.
type Tickets struct {
	tls.ClientSessionCache
	h       *Profiles
	addr    netip.AddrPort
	prefix  string
	mute    bool // takes tickets, but offers none
	key     string
	Offered *tls.ClientSessionState // by this connection
	renewed bool                    // the host gave another one
}

// Get implements tls.ClientSessionCache.
func (c *Tickets) Get(key string) (*tls.ClientSessionState, bool) {
	if c.mute {
		return nil, false
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	s, ok := c.ClientSessionCache.Get(c.prefix + key)
	if !ok || s == nil {
		return nil, false
	}
	c.ClientSessionCache.Put(c.prefix+key, nil)
	c.key, c.Offered = key, s
	return s, true
}

// Put implements tls.ClientSessionCache. With a ticket the host's certificates are
// kept, and a host may have as many of them as it likes: what comes to more than
// maxTicket octets is not worth it. Nor is a ticket of an address whose tickets
// break sessions: hosts hand out new ones in sessions that fail.
func (c *Tickets) Put(key string, s *tls.ClientSessionState) {
	if s == nil || c.h.NoTickets.Has(c.addr) || ticketSize(s) > maxTicket {
		return
	}
	c.renewed = true
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.ClientSessionCache.Put(c.prefix+key, s)
}

// Worked puts the offered ticket back after a handshake that it was good for,
// where the host is content with that: up to TLS 1.2 a ticket is for more than one
// session (RFC 5077 §3.3).
func (c *Tickets) Worked(s *policy.Session) {
	if c.Offered != nil && s.Resumed && s.Version < policy.TLS13 && !c.renewed {
		c.Put(c.key, c.Offered)
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

// dropTickets forgets the tickets for k, whatever hello they came with.
func (p *Profiles) dropTickets(k Endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	prefix := ticketPrefix(k)
	for _, base := range p.configs {
		// Without a server name crypto/tls keys by address.
		for _, name := range [...]string{k.ServerName, k.Addr.String()} {
			cache := base.ClientSessionCache
			if cache == nil {
				continue
			}
			if s, _ := cache.Get(prefix + name); s != nil {
				cache.Put(prefix+name, nil)
			}
		}
	}
}

// WithoutTicket notes that a ticket spoiled a connection, which came to a stage. Where
// that was the last one, all it spoiled was the certificate, which is as old as the
// ticket: the next one is better.
func (p *Profiles) WithoutTicket(k Endpoint, stage policy.Stage) {
	if stage != policy.StageReady {
		p.NoTickets.Note(k.Addr)
		p.Resumes.Forget(k.Addr)
	}
	p.dropTickets(k)
}

func ticketPrefix(k Endpoint) string { return k.Addr.String() + " " + k.Source.String() + " " }
