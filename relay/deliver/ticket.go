package deliver

import (
	"context"
	"net/netip"

	"tlsrelay/policy"
)

// open opens a session and, where a ticket may have broken that, another one
// without: of the two, the last one counts. A probe looks at what a host is now.
func (a *attempt) open(ctx context.Context, h *host, k target, m openOptions) (*session, observation) {
	m.noTicket = a.job == nil || a.noTicket[k.addr]
	s, seen := a.e.open(ctx, h, k, m)
	if seen.verdict.Action == policy.RetryNoTicket && ctx.Err() == nil {
		a.record(h, k, seen)
		a.withoutTicket(k, seen.observed.Stage)
		m.noTicket = true
		s, seen = a.e.open(ctx, h, k, m)
	}
	return s, seen
}

// withoutTicket draws the consequences of a connection that a ticket may have
// spoiled.
func (a *attempt) withoutTicket(k target, stage policy.Stage) {
	if a.noTicket == nil {
		a.noTicket = make(map[netip.AddrPort]bool)
	}
	a.noTicket[k.addr] = true
	a.e.client.profiles.withoutTicket(k.endpoint, stage)
	a.e.metrics.ticketFailed.Inc()
}

// ticketFailed reports whether the first MAIL of a session failed in such a way
// that the session ticket may be why, and sees to it that none is offered again.
// Nobody was refused then, and the next session tells.
func (a *attempt) ticketFailed(h *host, t *transaction) bool {
	s := t.session
	if !s.seen.Ticket || s.mails != 1 || t.bodyFailed() || a.ctx.Err() != nil {
		return false
	}
	if t.mailed && t.mailRefusal.Code == 0 {
		if s.seen.TLS.Resumed {
			a.e.client.profiles.resumes.note(s.key.addr)
		}
		return false
	}
	seen := observation{observed: s.observed(h.decision.Names), reply: t.mailRefusal, local: s.local}
	o := &seen.observed
	o.Stage, o.FirstMail, o.Code = policy.StageMail, true, t.mailRefusal.Code
	if !t.mailed {
		seen.reply = s.lost(o, t.err)
	}
	if seen.verdict = h.decision.Judge(*o); seen.verdict.Action != policy.RetryNoTicket {
		return false
	}
	a.withoutTicket(s.key, o.Stage)
	if t.ended && !t.mailed {
		return false // all of the message was sent, and it may have arrived
	}
	a.record(h, s.key, seen)
	return true
}
