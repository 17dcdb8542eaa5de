package handshake

import (
	"crypto/tls"
	"net/netip"
	"time"

	"tlsrelay/policy"
)

// Session tickets save both sides the costly part of a handshake. But a ticket may be
// older than the host's configuration, and some hosts break resumed sessions. So a
// connection that fails where a ticket was offered is evidence of nothing; it is made
// once more without one (row C8r), and that address is offered none for a day.

// Bounds of the tickets kept for one profile: how many, and the octets of each.
const (
	maxTickets = 2048
	maxTicket  = 16 << 10
)

// How long it is remembered that an address breaks resumed sessions, or does not.
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
	mute    bool // keeps tickets, but offers none
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

// Put implements tls.ClientSessionCache. A ticket is kept with the host's certificates,
// and a host may send as many as it likes, so one of more than maxTicket octets is not
// kept. Neither is one of an address whose tickets break sessions: such hosts send new
// ones in sessions that fail.
func (c *Tickets) Put(key string, s *tls.ClientSessionState) {
	if s == nil || c.h.NoTickets.Has(c.addr) || ticketSize(s) > maxTicket {
		return
	}
	c.renewed = true
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.ClientSessionCache.Put(c.prefix+key, s)
}

// Worked puts the offered ticket back after a handshake that used it, if the host sent
// no new one: up to TLS 1.2 a ticket is for more than one session (RFC 5077 §3.3).
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

// dropTickets forgets the tickets for k, whatever profile they came with.
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

// WithoutTicket drops the tickets of an address where one was offered on a connection
// that failed at stage, and offers none for a day. At StageReady nothing broke: only the
// certificate was as old as the ticket, and the next ticket will be better.
func (p *Profiles) WithoutTicket(k Endpoint, stage policy.Stage) {
	if stage != policy.StageReady {
		p.NoTickets.Note(k.Addr)
		p.Resumes.Forget(k.Addr)
	}
	p.dropTickets(k)
}

func ticketPrefix(k Endpoint) string { return k.Addr.String() + " " + k.Source.String() + " " }
