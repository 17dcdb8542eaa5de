package deliver

import (
	"cmp"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp"
)

// recipient is one waiting recipient during an attempt.
type recipient struct {
	*relay.Recipient
	done    bool          // nothing more to do in this attempt
	outcome relay.Outcome // when done; before, the best answer so far
	askedIn int           // the last host session that asked about it; 0: ask again
	unfit   []*host       // hosts that cannot take it
	misfit  relay.Outcome // why the last of them cannot
}

// sessionEnd is how a host session ended.
type sessionEnd int

const (
	answered  sessionEnd = iota // the host was asked about every recipient, or may not be asked any more
	exhausted                   // the session carries no more; the host may
	dead                        // no evidence: an idle session had ended before MAIL, or a ticket broke this one
	again                       // the session can do no more; a new one may do better at once
	lost                        // the connection broke before all of the message was sent
	wantsTLS                    // in clear, the host said "STARTTLS first" (C12)
	unknown                     // the host may have accepted the message, or we could not read it
)

// useSession makes the transactions of the message on an open session, and on new ones
// with the same address where that one can do no more.
func (a *attempt) useSession(h *host, s *smtp.Session, seen smtp.Observation) sessionEnd {
	if a.job == nil {
		a.ask(h, s, seen)
		return answered
	}
	a.sessions++
	for {
		stop := s.WhileOpen(a.ctx)
		a.gate.waits(s.Raw, nil)
		e, t := a.serve(h, s, seen)
		a.gate.waits(nil, nil)
		if !stop() || a.gate.isShut() {
			s.Broken = true
		}
		if e == dead {
			// The host may close an idle session at any time: no evidence.
			a.discard(s)
			return dead
		}
		a.leaveSession(h, s, seen, e, t)
		a.worn = 0
		if e == again && t.MailRefusal.Code != 0 {
			a.worn = s.Carried
		}
		if e != exhausted && e != again || !a.reopen(h, &s, &seen, e == again) {
			a.worn = 0
			a.trouble = a.trouble || e == again && s.HungUp && !t.RefusedSome()
			return e
		}
	}
}

// maxAgain is how many connections one attempt opens in a row, each in place of the one
// before, until a recipient is answered for.
const maxAgain = 3

// reopen replaces a session that can do no more. anew leaves out idle sessions: they may
// be as worn as this one.
func (a *attempt) reopen(h *host, s **smtp.Session, seen *smtp.Observation, anew bool) bool {
	if anew {
		if a.agains++; a.agains > maxAgain {
			return false
		}
	}
	if a.done() {
		return false
	}
	next, saw, err := a.connect(h, (*s).Target, smtp.OpenOptions{
		Hello: cmp.Or(seen.Observed.Hello, policy.FullHello), Plain: seen.Observed.Plain,
	}, anew)
	if err != nil || next == nil {
		a.discard(next)
		return false
	}
	*s, *seen = next, saw
	return true
}

// leaveSession records the host session and gives the session back or closes it.
func (a *attempt) leaveSession(h *host, s *smtp.Session, seen smtp.Observation, e sessionEnd, t *smtp.Transaction) {
	told := true
	switch e {
	case again:
		told = t.RefusedSome()
	case lost:
		seen.Reply = s.Lost(&seen.Observed, t.Err)
		seen.Verdict = h.decision.Judge(seen.Observed)
		a.e.log.Debug("session lost", zap.Stringer("address", s.Target.Addr), zap.Error(t.Err))
	case wantsTLS:
		seen.Observed.Stage, seen.Observed.Code = policy.StageMail, t.MailRefusal.Code
		seen.Verdict = h.decision.Judge(seen.Observed)
		seen.Reply = t.MailRefusal
	default:
		h.served = true
	}
	if a.ctx.Err() == nil && !a.gate.isShut() {
		h.verdicts = append(h.verdicts, seen.Verdict)
		if told {
			a.record(h, s.Target, seen)
		}
	}
	a.stop = a.stop || e == unknown
	a.trouble = a.trouble || e == lost || s.HungUp && e != again && !t.RefusedSome()
	switch {
	case e == answered && s.Poolable():
		a.e.pool.Put(s)
	case s.Broken:
		a.discard(s)
	default:
		a.e.pool.Drop(s)
	}
}

// serve runs transactions until every waiting recipient was asked about.
func (a *attempt) serve(h *host, s *smtp.Session, seen smtp.Observation) (sessionEnd, *smtp.Transaction) {
	told := eventSession(h.Name, seen)
	a.unfit(h, s, told)
	var t *smtp.Transaction
	for {
		batch := a.batch(s)
		if len(batch) == 0 || !a.gate.Open() {
			return answered, t
		}
		if s.Spent() {
			return exhausted, t
		}
		rcpts := make([]*relay.Recipient, len(batch))
		for i, r := range batch {
			rcpts[i] = r.Recipient
		}
		t = s.Transact(&a.mail, rcpts)
		a.gate.again()
		a.learn(t)
		if e := a.apply(h, t, batch, told); e != answered {
			return e, t
		}
	}
}

// batch picks the recipients of the next transaction.
func (a *attempt) batch(s *smtp.Session) []*recipient {
	most := a.e.o.MaxRecipientsPerTransaction
	if n := s.Ext.RcptMax; n > 0 {
		most = min(most, n)
	}
	if s.StepByStep() {
		most = 1
	}
	var batch []*recipient
	for i := range a.rcpts {
		if r := &a.rcpts[i]; !r.done && r.askedIn != a.sessions && len(batch) < most {
			batch = append(batch, r)
		}
	}
	return batch
}

// learn looks at the first transaction of a session that replaced a worn one. If the host
// accepts MAIL here and refused it there, the worn session had carried as many messages as
// the address allows over one connection.
func (a *attempt) learn(t *smtp.Transaction) {
	if a.worn > 0 && t.Session.Mails == 1 && t.Mailed && t.MailRefusal.Code == 0 && !t.Session.HungUp {
		a.e.client.Peers.CarriesAtMost(t.Session.Target.Addr, a.worn)
	}
	a.worn = 0
}

// apply notes what one transaction came to for its recipients, and how the session goes
// on.
func (a *attempt) apply(h *host, t *smtp.Transaction, batch []*recipient, told events.Session) sessionEnd {
	switch {
	case t.DiedIdle(), a.ticketFailed(h, t):
		return dead
	case t.MailRefusal.Code == 0 && t.TLSFirst():
		return wantsTLS
	case t.MailRefusal.Code != 0:
		return a.mailRefused(h, t, batch, told)
	}
	if t.Stopped() {
		a.refusedOnly(h, t, batch, told)
		return answered
	}
	progress := false
	for i, r := range batch {
		r.askedIn = a.sessions
		switch said := t.Answers[i]; said.Standing {
		case smtp.Refused:
			r.answer(refusalFailure(t, said.Reply, relay.ReachRecipient, h.Name), told)
			progress = true
		case smtp.Unclear:
			r.answer(mixedFailure(said.Reply, relay.ReachRecipient, h.Name), told)
			progress = true
		case smtp.Taken:
			progress = true
			a.take(h, t, r, told)
		}
	}
	a.postpone(h, t, batch, progress, told)
	switch {
	case a.repeat(t, batch):
		return again
	case t.Unclear && t.Begun:
		return unknown
	case t.Err == nil || t.AllHeard():
		return answered
	case t.Unknowable():
		return unknown
	}
	return lost
}

// refusedOnly notes the refusals of a transaction that we broke off. For the other
// recipients the attempt was not made.
func (a *attempt) refusedOnly(h *host, t *smtp.Transaction, batch []*recipient, told events.Session) {
	for i, r := range batch {
		if said := t.Answers[i]; said.Standing == smtp.Refused {
			r.answer(refusalFailure(t, said.Reply, relay.ReachRecipient, h.Name), told)
		}
	}
}

// take gives an accepted recipient the outcome of the message.
func (a *attempt) take(h *host, t *smtp.Transaction, r *recipient, told events.Session) {
	switch {
	case t.Final.Code == 0:
		r.answer(lostFailure(t, h.Name), told)
	case t.Unclear:
		r.answer(mixedFailure(t.Final, relay.ReachMessage, h.Name), told)
	case t.Final.Code < 400:
		r.done = true
		r.outcome = relay.Outcome{Reply: t.Final, Relayed: t.Session.Ext.DSN, Session: told}
	default:
		f := refusalFailure(t, t.Final, relay.ReachMessage, h.Name)
		if t.Hopeless {
			f.Class, f.Reason = relay.Permanent, events.ReplyMixed
		}
		r.answer(f, told)
	}
}

// postpone sees to the recipients that the transaction had no room for. They come into the
// next one, unless this one had room for nobody.
func (a *attempt) postpone(h *host, t *smtp.Transaction, batch []*recipient, progress bool, told events.Session) {
	for i, r := range batch {
		switch said := t.Answers[i]; {
		case said.Standing == smtp.TooMany && progress && t.Err == nil:
			r.askedIn = 0
			if n := t.CountTaken(); n > 0 && t.FullFrom(i) {
				t.Session.Ext.RcptMax = n // asking more again would be for nothing
			}
		case said.Standing == smtp.TooMany:
			f := replyFailure(said.Reply, relay.ReachRecipient, h.Name)
			f.Class, f.Reason = relay.Temporary, events.ReplyTemp
			f.Status = "4.5.3"
			r.answer(f, told)
		case said.Standing == smtp.Unasked:
			r.answer(lostFailure(t, h.Name), told)
		}
	}
}

// mailRefused gives the refusal of MAIL to every recipient that waits.
func (a *attempt) mailRefused(h *host, t *smtp.Transaction, batch []*recipient, told events.Session) sessionEnd {
	if t.Session.AsksForTLS(t.MailRefusal) {
		return wantsTLS
	}
	f := replyFailure(t.MailRefusal, relay.ReachMessage, h.Name)
	if t.Unclear {
		f = mixedFailure(t.MailRefusal, relay.ReachMessage, h.Name)
	}
	if a.repeat(t, batch) {
		for _, r := range batch {
			if !r.done {
				r.outcome = relay.Outcome{Failure: f, Reply: f.Reply, Session: told} // for now
			}
		}
		return again
	}
	for i := range a.rcpts {
		if r := &a.rcpts[i]; !r.done {
			r.askedIn = a.sessions
			r.answer(f, told)
		}
	}
	return answered
}

// refusalFailure is that of a refusal. In clear, a refusal for want of TLS is never
// permanent, even if the host has served others (C12).
func refusalFailure(t *smtp.Transaction, r relay.Reply, reach relay.Reach, host string) *relay.Failure {
	f := replyFailure(r, reach, host)
	if t.Session.AsksForTLS(r) {
		f.Class, f.Reason = relay.Temporary, events.StartTLSTempfail
		f.Status = policy.Status(f.Reason, "", false)
	}
	return f
}

// answer notes a failure. A permanent one is final; a temporary one stands until another
// host does better.
func (r *recipient) answer(f *relay.Failure, told events.Session) {
	if f.Class == relay.Permanent {
		r.finish(f, told)
		return
	}
	r.outcome = relay.Outcome{Failure: f, Reply: f.Reply, Session: told}
}

func (r *recipient) finish(f *relay.Failure, told events.Session) {
	r.done = true
	r.outcome = relay.Outcome{Failure: f, Reply: f.Reply, Session: told}
}

// failure is one with a text of ours.
func failure(c relay.Class, reach relay.Reach, why events.Reason, status, text string) *relay.Failure {
	return &relay.Failure{Class: c, Reach: reach, Reason: why, Status: status, Reply: relay.Reply{Text: text}}
}

// replyFailure is one with a reply of the host.
func replyFailure(r relay.Reply, reach relay.Reach, host string) *relay.Failure {
	f := &relay.Failure{Class: relay.Temporary, Reach: reach, Reason: events.ReplyTemp, Reply: r, Status: r.Enhanced, Host: host}
	if r.Code >= 500 {
		f.Class, f.Reason = relay.Permanent, events.ReplyPerm
	}
	if r.Code == 421 {
		f.Reach = relay.ReachHost
	}
	if f.Status == "" {
		f.Status = "4.0.0"
		if f.Class == relay.Permanent {
			f.Status = "5.0.0"
		}
	}
	return f
}

// mixedFailure is that of a reply which says yes and no.
func mixedFailure(r relay.Reply, reach relay.Reach, host string) *relay.Failure {
	f := replyFailure(r, reach, host)
	f.Class, f.Reason, f.Status = relay.Temporary, events.ReplyMixed, "4.5.0"
	return f
}

// lostFailure is that of a conversation that broke off. Of a fault of our own store it
// tells no more than that.
func lostFailure(t *smtp.Transaction, host string) *relay.Failure {
	if t.BodyFailed() {
		return failure(relay.Temporary, relay.ReachMessage, events.Internal, "4.3.0", "message could not be read")
	}
	text := t.ErrorText()
	if t.Ended {
		text += " after the message was sent"
	}
	f := failure(relay.Temporary, relay.ReachHost, events.SessionLost, "4.4.2", text)
	f.Host = host
	return f
}
