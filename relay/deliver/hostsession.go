package deliver

import (
	"cmp"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// recipient is one waiting recipient during an attempt.
type recipient struct {
	*relay.Recipient
	done    bool          // nothing more to do in this attempt
	outcome relay.Outcome // when done, or the best answer so far
	askedIn int           // the last host session that asked about it; 0: ask again
	unfit   []*host       // hosts that cannot take it
	misfit  relay.Outcome // why the last of them cannot
}

// sessionEnd is how a host session ended.
type sessionEnd int

const (
	answered  sessionEnd = iota // every recipient was asked about, or none may be any more
	exhausted                   // the session carries no more; the host may
	dead                        // the session proved nothing: idle, it was gone before MAIL was answered, or its ticket broke it
	again                       // the session is at its end; a new one may do better at once
	lost                        // the connection broke before the message was out
	wantsTLS                    // in clear, MAIL was answered "STARTTLS first" (C12)
	unknown                     // the message was out, and nobody said what became of it; or we could not read it
)

// useSession hands the message over on an open session, and draws what follows for
// the host.
func (a *attempt) useSession(h *host, s *session, seen observation) sessionEnd {
	if a.job == nil {
		a.ask(h, s, seen)
		return answered
	}
	a.sessions++
	for {
		stop := s.whileOpen(a.ctx)
		a.gate.waits(s.raw, nil)
		e, t := a.serve(h, s, seen)
		a.gate.waits(nil, nil)
		if !stop() || a.gate.isShut() {
			s.broken = true
		}
		if e == dead {
			// The host may close an idle session at any time: no evidence.
			a.discard(s)
			return dead
		}
		a.leaveSession(h, s, seen, e, t)
		a.worn = 0
		if e == again && t.mailRefusal.Code != 0 {
			a.worn = s.carried
		}
		if e != exhausted && e != again || !a.reopen(h, &s, &seen, e == again) {
			a.worn = 0
			a.trouble = a.trouble || e == again && s.hungUp && !t.refusedSome()
			return e
		}
	}
}

// maxAgain is how many new connections one attempt opens in a row, each instead of
// the one before, before somebody is answered for.
const maxAgain = 3

// reopen replaces a session that has carried all it may. Where it has shown that
// itself, no other idle session is used, for that may be as old.
func (a *attempt) reopen(h *host, s **session, seen *observation, anew bool) bool {
	if anew {
		if a.agains++; a.agains > maxAgain {
			return false
		}
	}
	if a.done() {
		return false
	}
	next, saw, err := a.connect(h, (*s).key, openOptions{
		hello: cmp.Or(seen.observed.Hello, policy.FullHello), plain: seen.observed.Plain,
	}, anew)
	if err != nil || next == nil {
		a.discard(next)
		return false
	}
	*s, *seen = next, saw
	return true
}

// leaveSession records the host session and gives the session back or closes it.
func (a *attempt) leaveSession(h *host, s *session, seen observation, e sessionEnd, t *transaction) {
	told := true
	switch e {
	case again:
		told = t.refusedSome()
	case lost:
		seen.reply = s.lost(&seen.observed, t.err)
		seen.verdict = h.decision.Judge(seen.observed)
		a.e.log.Debug("session lost", zap.Stringer("address", s.key.addr), zap.Error(t.err))
	case wantsTLS:
		seen.observed.Stage, seen.observed.Code = policy.StageMail, t.mailRefusal.Code
		seen.verdict = h.decision.Judge(seen.observed)
		seen.reply = t.mailRefusal
	default:
		h.served = true
	}
	if a.ctx.Err() == nil && !a.gate.isShut() {
		h.verdicts = append(h.verdicts, seen.verdict)
		if told {
			a.record(h, s.key, seen)
		}
	}
	a.stop = a.stop || e == unknown
	a.trouble = a.trouble || e == lost || s.hungUp && e != again && !t.refusedSome()
	switch {
	case e == answered && s.poolable():
		a.e.pool.put(s)
	case s.broken:
		a.discard(s)
	default:
		a.e.pool.drop(s)
	}
}

// serve runs transactions until every waiting recipient was asked about.
func (a *attempt) serve(h *host, s *session, seen observation) (sessionEnd, *transaction) {
	told := eventSession(h.Name, seen)
	a.unfit(h, s, told)
	var t *transaction
	for {
		batch := a.batch(s)
		if len(batch) == 0 {
			return answered, t
		}
		if !a.gate.open() {
			return answered, t
		}
		if s.spent() {
			return exhausted, t
		}
		rcpts := make([]*relay.Recipient, len(batch))
		for i, r := range batch {
			rcpts[i] = r.Recipient
		}
		t = s.transact(&a.mail, rcpts)
		a.gate.again()
		a.learn(t)
		if e := a.apply(h, t, batch, told); e != answered {
			return e, t
		}
	}
}

// batch picks the recipients of the next transaction.
func (a *attempt) batch(s *session) []*recipient {
	most := a.e.o.MaxRecipientsPerTransaction
	if n := s.ext.rcptMax; n > 0 {
		most = min(most, n)
	}
	if s.stepByStep() {
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

// learn draws from the first transaction of a session that replaced one at its
// end what that one had come to: if this takes what the other refused, the other
// had carried as many messages as the address takes over one connection.
func (a *attempt) learn(t *transaction) {
	if a.worn > 0 && t.session.mails == 1 && t.mailed && t.mailRefusal.Code == 0 && !t.session.hungUp {
		a.e.client.peers.carriesAtMost(t.session.key.addr, a.worn)
	}
	a.worn = 0
}

// apply draws from one transaction what became of its recipients.
func (a *attempt) apply(h *host, t *transaction, batch []*recipient, told events.Session) sessionEnd {
	switch {
	case t.diedIdle(), a.ticketFailed(h, t):
		return dead
	case t.mailRefusal.Code == 0 && t.tlsFirst():
		return wantsTLS
	case t.mailRefusal.Code != 0:
		return a.mailRefused(h, t, batch, told)
	}
	if t.stopped() {
		a.refusedOnly(h, t, batch, told)
		return answered
	}
	progress := false
	for i, r := range batch {
		r.askedIn = a.sessions
		switch said := t.answers[i]; said.standing {
		case refused:
			r.answer(t.refusal(said.reply, relay.ReachRecipient, h.Name), told)
			progress = true
		case unclear:
			r.answer(mixedFailure(said.reply, relay.ReachRecipient, h.Name), told)
			progress = true
		case taken:
			progress = true
			a.take(h, t, r, told)
		}
	}
	a.postpone(h, t, batch, progress, told)
	switch {
	case a.repeat(t, batch):
		return again
	case t.unclear && t.begun:
		return unknown
	case t.err == nil || t.allHeard():
		return answered
	case t.unknowable():
		return unknown
	}
	return lost
}

// refusedOnly draws from a transaction that we broke off what the host has said
// for good; for the others the attempt has not been made.
func (a *attempt) refusedOnly(h *host, t *transaction, batch []*recipient, told events.Session) {
	for i, r := range batch {
		if said := t.answers[i]; said.standing == refused {
			r.answer(t.refusal(said.reply, relay.ReachRecipient, h.Name), told)
		}
	}
}

// take ends a recipient that RCPT accepted, by the answer to the message.
func (a *attempt) take(h *host, t *transaction, r *recipient, told events.Session) {
	switch {
	case t.final.Code == 0:
		r.answer(lostFailure(t, h.Name), told)
	case t.unclear:
		r.answer(mixedFailure(t.final, relay.ReachMessage, h.Name), told)
	case t.final.Code < 400:
		r.done = true
		r.outcome = relay.Outcome{Reply: t.final, Relayed: t.session.ext.dsn, Session: told}
	default:
		f := t.refusal(t.final, relay.ReachMessage, h.Name)
		if t.hopeless {
			f.Class, f.Reason = relay.Permanent, events.ReplyMixed
		}
		r.answer(f, told)
	}
}

// postpone sees to the recipients that the transaction had no room for. Where
// it served nobody, the next one would not either.
func (a *attempt) postpone(h *host, t *transaction, batch []*recipient, progress bool, told events.Session) {
	for i, r := range batch {
		switch said := t.answers[i]; {
		case said.standing == tooMany && progress && t.err == nil:
			r.askedIn = 0
			if n := t.taken(); n > 0 && t.fullFrom(i) {
				t.session.ext.rcptMax = n // asking more again would be for nothing
			}
		case said.standing == tooMany:
			f := replyFailure(said.reply, relay.ReachRecipient, h.Name)
			f.Class, f.Reason = relay.Temporary, events.ReplyTemp
			f.Status = "4.5.3"
			r.answer(f, told)
		case said.standing == unasked:
			r.answer(lostFailure(t, h.Name), told)
		}
	}
}

// mailRefused spreads the refusal of MAIL over everybody who waits.
func (a *attempt) mailRefused(h *host, t *transaction, batch []*recipient, told events.Session) sessionEnd {
	if t.session.asksForTLS(t.mailRefusal) {
		return wantsTLS
	}
	f := replyFailure(t.mailRefusal, relay.ReachMessage, h.Name)
	if t.unclear {
		f = mixedFailure(t.mailRefusal, relay.ReachMessage, h.Name)
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

// refusal is one in the host's words. In clear, one for the want of TLS is
// not for good, whomever else the host has served (C12).
func (t *transaction) refusal(r relay.Reply, reach relay.Reach, host string) *relay.Failure {
	f := replyFailure(r, reach, host)
	if t.session.asksForTLS(r) {
		f.Class, f.Reason = relay.Temporary, events.StartTLSTempfail
		f.Status = policy.Status(f.Reason, "", false)
	}
	return f
}

// answer notes a failure: a permanent one ends the recipient, a temporary one stands
// until another host says better.
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

// failure is one in our own words.
func failure(c relay.Class, reach relay.Reach, why events.Reason, status, text string) *relay.Failure {
	return &relay.Failure{Class: c, Reach: reach, Reason: why, Status: status, Reply: relay.Reply{Text: text}}
}

// replyFailure is one in the host's words.
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

// lostFailure is that of a conversation that broke off. A fault of our own
// store shows no inner text.
func lostFailure(t *transaction, host string) *relay.Failure {
	if t.bodyFailed() {
		return failure(relay.Temporary, relay.ReachMessage, events.Internal, "4.3.0", "message could not be read")
	}
	text := t.errorText()
	if t.ended {
		text += " after the message was sent"
	}
	f := failure(relay.Temporary, relay.ReachHost, events.SessionLost, "4.4.2", text)
	f.Host = host
	return f
}
