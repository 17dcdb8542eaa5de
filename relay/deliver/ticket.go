package deliver

import (
	"context"
	"net/netip"

	"tlsrelay/policy"
	"tlsrelay/relay/deliver/smtp"
)

// open opens a session and, if a ticket may have broken it, another one without a ticket;
// the last one counts. A probe offers no ticket: it asks what a host does now.
func (a *attempt) open(ctx context.Context, h *host, k smtp.Target, m smtp.OpenOptions) (*smtp.Session, smtp.Observation) {
	m.NoTicket = a.job == nil || a.noTicket[k.Addr]
	s, seen := a.e.open(ctx, h, k, m)
	if seen.Verdict.Action == policy.RetryNoTicket && ctx.Err() == nil {
		a.record(h, k, seen)
		a.withoutTicket(k, seen.Observed.Stage)
		m.NoTicket = true
		s, seen = a.e.open(ctx, h, k, m)
	}
	return s, seen
}

// withoutTicket offers no ticket any more at an address where one may have broken a
// connection at stage.
func (a *attempt) withoutTicket(k smtp.Target, stage policy.Stage) {
	if a.noTicket == nil {
		a.noTicket = make(map[netip.AddrPort]bool)
	}
	a.noTicket[k.Addr] = true
	a.e.client.Profiles.WithoutTicket(k.Endpoint, stage)
	a.e.metrics.ticketFailed.Inc()
}

// ticketFailed reports whether a session failed at its first MAIL, and its ticket may be
// why. Then no ticket is offered again, no recipient is refused, and the next session
// counts.
func (a *attempt) ticketFailed(h *host, t *smtp.Transaction) bool {
	s := t.Session
	if !s.Seen.Ticket || s.Mails != 1 || t.BodyFailed() || a.ctx.Err() != nil {
		return false
	}
	if t.Mailed && t.MailRefusal.Code == 0 {
		if s.Seen.TLS.Resumed {
			a.e.client.Profiles.Resumes.Note(s.Target.Addr)
		}
		return false
	}
	seen := smtp.Observation{Observed: s.Observed(h.decision.Names), Reply: t.MailRefusal, Local: s.Local}
	o := &seen.Observed
	o.Stage, o.FirstMail, o.Code = policy.StageMail, true, t.MailRefusal.Code
	if !t.Mailed {
		seen.Reply = s.Lost(o, t.Err)
	}
	if seen.Verdict = h.decision.Judge(*o); seen.Verdict.Action != policy.RetryNoTicket {
		return false
	}
	a.withoutTicket(s.Target, o.Stage)
	if t.Ended && !t.Mailed {
		return false // all of the message was sent, and it may have arrived
	}
	a.record(h, s.Target, seen)
	return true
}
