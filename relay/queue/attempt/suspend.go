package attempt

import (
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
)

// Suspend gives a claimed delivery a deferral without an attempt, because its
// destination is dead; last is the destination's last failure, nil when it is not
// known. It says when the next attempt is due, and what became due in other
// queues. Neither is known when the commit fails: then the lease ends by itself.
func (m *Maker) Suspend(c relay.Claimed, last *relay.Failure) (due time.Time, elsewhere []relay.Backlog) {
	defer func() {
		if p := recover(); p != nil {
			m.panicked(c.Delivery.Key, p)
		}
	}()
	r := m.suspended(c, suspension(last))
	if notMade(r) {
		return m.postpone(c), nil
	}
	t, ok := m.stepAndCommit(c.Message, c.Delivery, r, false)
	if !ok {
		return time.Time{}, nil
	}
	if !t.Done {
		due = t.After.Due
	}
	return due, reportBacklogs(t)
}

// suspended is the result of a delivery that is not attempted. It asks for the
// demands all the same: they decide whether the end of the policy window makes a
// block of it, and whether a report may return the body.
func (m *Maker) suspended(c relay.Claimed, f relay.Failure) relay.Result {
	d := c.Delivery
	_, demanding, err := m.demands(m.commit, c.Message, &d)
	if err != nil {
		return m.senderUnknown(d, err)
	}
	r := relay.FailAll(d, f, time.Now())
	r.Demanding = demanding
	if r.Attempt.Ruling != policy.Block {
		return r // the guard counts attempts only
	}
	return m.guarded(d, r)
}

// suspension is the failure of a delivery that is not attempted.
func suspension(last *relay.Failure) relay.Failure {
	f := relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachDestination, Reason: events.ConnectFail, Status: "4.4.1",
		Reply: relay.Reply{Text: "delivery temporarily suspended"},
	}
	if last != nil && last.Class == relay.Temporary {
		f.Reason, f.Status = last.Reason, last.Status
		f.Reply.Text += ": " + last.Reply.String()
	}
	return f
}
