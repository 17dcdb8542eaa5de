package deliver

import (
	"cmp"
	"context"
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

// ticketCache is what one connection sees of the tickets of its profile. It keys
// them by address, source and profile beside the server name, so that neither
// another host of the same name nor another source address can be linked through
// them. A ticket that is offered is taken out: none of TLS 1.3 is offered twice
// (RFC 8446 §C.4), and none that failed ever comes back.
type ticketCache struct {
	tls.ClientSessionCache
	h       *hellos
	addr    netip.AddrPort
	prefix  string
	mute    bool // takes tickets, but offers none
	key     string
	offered *tls.ClientSessionState // by this connection
	renewed bool                    // the host gave another one
}

// Get implements tls.ClientSessionCache.
func (c *ticketCache) Get(key string) (*tls.ClientSessionState, bool) {
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
	c.key, c.offered = key, s
	return s, true
}

// Put implements tls.ClientSessionCache. With a ticket the host's certificates are
// kept, and a host may have as many of them as it likes: what comes to more than
// maxTicket octets is not worth it. Nor is a ticket of an address whose tickets
// break sessions: hosts hand out new ones in sessions that fail.
func (c *ticketCache) Put(key string, s *tls.ClientSessionState) {
	if s == nil || c.h.noTickets.has(c.addr) || ticketSize(s) > maxTicket {
		return
	}
	c.renewed = true
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.ClientSessionCache.Put(c.prefix+key, s)
}

// worked puts the offered ticket back after a handshake that it was good for,
// where the host is content with that: up to TLS 1.2 a ticket is for more than one
// session (RFC 5077 §3.3).
func (c *ticketCache) worked(s *policy.Session) {
	if c.offered != nil && s.Resumed && s.Version < policy.TLS13 && !c.renewed {
		c.Put(c.key, c.offered)
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
func (h *hellos) dropTickets(k poolKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	prefix := ticketPrefix(k)
	for _, base := range h.configs {
		// Without a server name crypto/tls keys by address.
		for _, name := range [...]string{k.sni, k.addr.String()} {
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

func ticketPrefix(k poolKey) string { return k.addr.String() + " " + k.source.String() + " " }

// open opens a session and, where a ticket may have broken that, another one
// without: of the two, the last one counts. A probe looks at what a host is now.
func (w *walk) open(ctx context.Context, h *host, k poolKey, m manner) (*session, sighting) {
	m.noTicket = w.job == nil || w.noTicket[k.addr]
	s, seen := w.e.open(ctx, k, h.decision, m)
	if seen.verdict.Action == policy.RetryNoTicket && ctx.Err() == nil {
		w.record(h, k, seen)
		w.withoutTicket(k, seen.observed.Stage)
		m.noTicket = true
		s, seen = w.e.open(ctx, k, h.decision, m)
	}
	if s != nil && seen.observed.TLS != nil && seen.observed.TLS.Resumed && !w.e.hellos.resumes.has(k.addr) {
		// Nothing is known of its resumed sessions yet: let it say a word first.
		s.cold = true
	}
	return s, seen
}

// withoutTicket draws the consequences of a connection that a ticket may have
// spoiled. Where all it spoiled was the certificate, which is as old as the
// ticket, the next one is better.
func (w *walk) withoutTicket(k poolKey, stage policy.Stage) {
	if w.noTicket == nil {
		w.noTicket = make(map[netip.AddrPort]bool)
	}
	w.noTicket[k.addr] = true
	if stage != policy.StageReady {
		w.e.hellos.noTickets.note(k.addr)
		w.e.hellos.resumes.forget(k.addr)
	}
	w.e.hellos.dropTickets(k)
	w.e.metrics.ticketFailed.Inc()
}

// ticketFailed reports whether the first MAIL of a session failed in such a way
// that the session ticket may be why, and sees to it that none is offered again.
// Nobody was refused then, and the next session tells.
func (w *walk) ticketFailed(h *host, x *exchange) bool {
	s := x.s
	if !s.seen.Ticket || s.mails != 1 || isOwn(x.err) || w.ctx.Err() != nil {
		return false
	}
	if x.mailed && x.mail.Code == 0 {
		if s.seen.TLS.Resumed {
			w.e.hellos.resumes.note(s.key.addr)
		}
		return false
	}
	seen := sighting{observed: s.observed(h.decision.Names), reply: x.mail, local: s.local}
	o := &seen.observed
	o.Stage, o.FirstMail, o.Code = policy.StageMail, true, x.mail.Code
	if !x.mailed {
		fault, alert := faultOf(x.err, false)
		o.Fault, o.Alert = cmp.Or(fault, policy.Closed), alert
		seen.reply.Text = wordsOf(x.err, s.key.addr)
	}
	if seen.verdict = h.decision.Judge(*o); seen.verdict.Action != policy.RetryNoTicket {
		return false
	}
	w.withoutTicket(s.key, o.Stage)
	if x.ended && !x.mailed {
		return false // all of the message was sent, and it may have arrived
	}
	w.record(h, s.key, seen)
	return true
}
