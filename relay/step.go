// From a 250 to the block event, 8 of 10: this file says what the result means:
// recipients, events, the report, the next attempt. Next:
// relay/store/mail/commit.go.

package relay

import (
	"slices"
	"strconv"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
)

// Step says what the result r of an attempt on d means at time now: which recipients are
// done with, which events and which report there are, and when the next attempt is. It is
// pure. relay/queue/attempt/commit.go has the report written and the transition committed.
//
//	outcome                      recipient   event             DSN
//	delivered                    delivered   delivered         relayed, if asked for and the host will send none
//	permanent failure            bounced     bounce            failed
//	  but not for the address    blocked     bounce/blocked    failed
//	refused by a sender's demand blocked     bounce/blocked    failed, headers only
//	temporary, lifetime over     blocked     bounce/blocked    failed
//	temporary                    waiting     deferred          delayed, once, if asked for
//
// A block event is a bounce event of the type blocked.
func (d Delivery) Step(m Message, r Result, now time.Time, s Schedule) Transition {
	st := stepper{m: m, d: d, now: now, end: m.Accepted.Add(s.Lifetime), history: r.History, demanded: r.Demanding}
	st.d.Recipients = slices.Clone(d.Recipients)
	st.d.Last, st.d.History = &r.Attempt, r.History
	st.tellDelay = !d.DelayTold && s.DelayAfter > 0 && now.Sub(m.Accepted) >= s.DelayAfter
	st.shared = refusedTogether(r.Outcomes)
	for i, open := range d.Waiting() {
		st.settle(&st.d.Recipients[open], r.Outcomes[i])
	}
	t := st.transition(d)
	if !t.Done {
		// The last attempt comes when the lifetime ends, not a delay later.
		t.After.Due = earlier(now.Add(s.Delay(d.Attempts)), st.end, now)
	}
	return t
}

// Drop ends d because an operator wants that: every waiting recipient gets a block event
// with the words given. demanding is whether the sender demands anything, as
// Result.Demanding is.
func (d Delivery) Drop(m Message, now time.Time, words string, demanding bool) Transition {
	st := stepper{m: m, d: d, now: now, end: now, history: d.History, demanded: demanding}
	st.d.Recipients = slices.Clone(d.Recipients)
	for _, open := range d.Waiting() {
		rcpt := &st.d.Recipients[open]
		st.fail(rcpt, Dropped, events.Session{}, Failure{
			Class: Refused, Reason: events.Dropped, Status: "5.7.1", Reply: Reply{Text: words},
		})
	}
	return st.transition(d)
}

// FailAll is the result of an attempt that failed for all waiting recipients alike, before
// it spoke to any host. If the trouble is the destination's and the policy window has
// ended, the evidence of earlier attempts blocks the message. A fault of this relay never
// does. A caller that knows the demands first removes from d.History what no longer counts
// (policy.History.Under).
func FailAll(d Delivery, f Failure, now time.Time) Result {
	ruling := policy.Unreached
	if f.Class == Temporary && f.Reach == ReachDestination && d.History.Over(now) {
		ruling, f = policy.Block, *Refusal(d.History.Violation)
	}
	r := Result{
		Attempt: Attempt{At: now, Ruling: ruling, Reason: f.Reason},
		History: d.History,
	}
	for range d.Waiting() {
		r.Outcomes = append(r.Outcomes, Outcome{Failure: &f, Reply: f.Reply})
	}
	return r
}

// stepper gathers the effects of one step.
type stepper struct {
	m         Message
	d         Delivery
	now, end  time.Time
	history   policy.History
	tellDelay bool
	demanded  bool // Result.Demanding
	shared    bool // a host refused the message of several recipients with one answer

	events []events.Event
	blocks []events.Block
	notice Notice
	synced bool // not only deliveries happened: the commit waits for the disk
}

func (st *stepper) settle(r *Recipient, o Outcome) {
	switch f := o.Failure; {
	case f == nil:
		st.delivered(r, o)
	case f.Class == Permanent:
		st.fail(r, st.ended(*f), o.Session, *f)
	case f.Class == Refused:
		st.fail(r, Blocked, o.Session, *f)
	case !st.now.Before(st.end):
		st.fail(r, Blocked, o.Session, st.expired(*f))
	default:
		st.deferred(r, o.Session, *f)
	}
}

// refusedTogether reports whether a host refused the message of several
// recipients with one answer.
func refusedTogether(all []Outcome) bool {
	n := 0
	for _, o := range all {
		if f := o.Failure; f != nil && f.Class == Permanent && f.Reach == ReachMessage {
			n++
		}
	}
	return n > 1
}

// ended is the state of a recipient that a permanent failure ends: bounced when
// it is about the address, blocked when later mail may well get through.
func (st *stepper) ended(f Failure) State {
	r := events.Refusal{
		Reply: f.Reply.String(), Status: f.Status, Reason: f.Reason,
		AtRecipient: f.Reach == ReachRecipient, Shared: st.shared && f.Reach == ReachMessage,
	}
	if r.Type() == events.TypeBounce {
		return Bounced
	}
	return Blocked
}

func (st *stepper) delivered(r *Recipient, o Outcome) {
	r.State, r.Reply = Delivered, o.Reply.String()
	st.tell(events.NewDelivered(st.subject(*r), st.now, o.Session, r.Reply))
	if r.Notify.OnSuccess() && !o.Relayed {
		st.notify(*r, ActionRelayed, o.Session.Host, Failure{Status: "2.0.0", Reply: o.Reply, Host: o.Session.Host})
	}
}

// fail ends a recipient that will not be delivered to. The block event is made here, and
// the row of the block list beside it.
func (st *stepper) fail(r *Recipient, state State, sess events.Session, f Failure) {
	st.synced = true
	r.State, r.Reply = state, f.Reply.String()
	typ, words := events.TypeBounce, r.Reply
	if state != Bounced {
		typ = events.TypeBlocked
	}
	if f.Class == Refused && state == Blocked {
		// Clients look for this one text, whatever the host failed. Which demand it
		// was, and where, is in the evidence and in the report.
		words = events.TLSBlocked
	}
	st.tell(events.NewBounce(st.subject(*r), st.now, sess, typ, words, f.Status, f.Reason))
	if typ == events.TypeBlocked && !st.m.Report {
		st.blocks = append(st.blocks, events.Block{
			Account: string(st.m.Account), Email: r.Address.String(), Reason: words,
			Status: f.Status, Created: st.now, MessageID: st.m.ID.String(),
		})
	}
	if r.Notify.OnFailure() {
		st.notify(*r, ActionFailed, sess.Host, f)
	}
}

func (st *stepper) deferred(r *Recipient, sess events.Session, f Failure) {
	st.synced = true
	r.Reply = f.Reply.String()
	st.tell(events.NewDeferred(st.subject(*r), st.now, sess, st.d.Attempts, r.Reply, f.Reason))
	if st.tellDelay && r.Notify.OnDelay() {
		st.notify(*r, ActionDelayed, sess.Host, f)
		st.d.DelayTold = true
	}
}

// expired is the failure of a recipient whose time ran out on f. If there was TLS
// evidence against the destination, that is the reason; otherwise the last reply
// is.
func (st *stepper) expired(f Failure) Failure {
	if v := st.history.Violation; st.history.Violated() {
		f.Class, f.Reason = Refused, v.Reason
		f.Status = policy.Status(v.Reason, v.Failed.Source, true)
		f.Reply = Reply{Text: events.TLSBlocked + ": " + string(v.Reason) + " at " + v.Host}
		return f
	}
	f.Class, f.Reason = Permanent, events.Expired
	switch f.Status {
	case "4.4.4":
		f.Status = "5.4.4"
	default:
		f.Status = "5.4.7" // RFC 3463 §3.5: delivery time expired
	}
	return f
}

func (st *stepper) subject(r Recipient) events.Subject {
	s := events.Subject{
		Account: string(st.m.Account), MessageID: st.m.ID.String(), Recipient: r.Index,
		Email: r.Address.String(), SMTPID: st.m.SMTPID,
		Category: st.m.Category, UniqueArgs: st.m.UniqueArgs,
	}
	if st.m.Report {
		s.Account = "" // for the log and the metrics, never for a webhook
		s.Origin = &events.Origin{Report: true, ReportOf: st.reportOf()}
	}
	return s
}

// reportOf is the id, as text, of the message that a report tells of. It is "" for a report
// that an earlier version of the relay stored without the id.
func (st *stepper) reportOf() string {
	if st.m.ReportOf == (MessageID{}) {
		return ""
	}
	return st.m.ReportOf.String()
}

// tell adds an event. It is told to the webhooks, the log and the metrics once it is
// committed.
func (st *stepper) tell(e events.Event) {
	e.Age = st.now.Sub(st.m.Accepted)
	st.events = append(st.events, e)
}

func (st *stepper) notify(r Recipient, a Action, mta string, f Failure) {
	n := NoticeRecipient{
		Action: a, Recipient: r, Status: f.Status, Diagnostic: f.Reply.String(),
		Remote: f.Reply.Code != 0 && f.Host != "", RemoteMTA: mta, Demand: f.Class == Refused && r.State == Blocked,
	}
	if f.Host != "" {
		n.RemoteMTA = f.Host
	}
	if r.State == Blocked && (f.Class == Refused || f.Reason == events.Expired) && st.d.Last != nil {
		n.Hosts = st.d.Last.Hosts
	}
	st.notice.Recipients = append(st.notice.Recipients, n)
}

func (st *stepper) transition(before Delivery) Transition {
	t := Transition{
		Message: st.m, Before: before, After: st.d,
		Done:   len(st.d.Waiting()) == 0,
		Events: st.events, Blocks: st.blocks, Sync: st.synced,
	}
	// Nobody is told about a message from nobody (RFC 5321 §4.5.5).
	if len(st.notice.Recipients) > 0 && !st.m.From.IsNull() {
		n := st.notice
		n.HeadersOnly = st.demanding()
		n.WillRetryTo = st.end
		t.Notice, t.Sync = &n, true
	}
	return t
}

// demanding reports whether a TLS demand stood on the message.
func (st *stepper) demanding() bool {
	return st.m.RequireTLS || st.demanded || st.d.Lane.Class != policy.ClassOpportunistic || st.history.Violated()
}

// earlier gives the earlier of two times, but not one that has passed.
func earlier(a, b, now time.Time) time.Time {
	if b.Before(a) && b.After(now) {
		return b
	}
	return a
}

// Processed gives the first event of every recipient: the relay has it.
func (m Message) Processed(rcpts []Recipient) []events.Event {
	st := stepper{m: m, now: m.Accepted}
	origin := &events.Origin{
		From: "<" + m.From.String() + ">", Client: m.Client, Key: m.Key, Size: m.Size,
		Report: m.Report, ReportOf: st.reportOf(),
	}
	for _, r := range rcpts {
		e := events.NewProcessed(st.subject(r), m.Accepted)
		e.Origin = origin
		st.tell(e)
	}
	return st.events
}

// String gives "<message id>/<number>", as operators write it.
func (k DeliveryKey) String() string {
	return k.Message.String() + "/" + strconv.Itoa(int(k.Number))
}
