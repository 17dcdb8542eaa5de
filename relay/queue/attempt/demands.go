package attempt

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
)

// Senders says what is demanded on the sender's side of a message for one
// destination (relay.Address.Destination): the settings of the account and of
// its parent, and the account's rule for that domain. With the error
// account.ErrNotFound there is no such account any more, which ends the message.
// With account.ErrDisabled the message waits, and so do reports of our own, about
// which nothing else is asked. Any other error may pass.
type Senders interface {
	Sender(ctx context.Context, m relay.Message, destination string) (policy.Sender, error)
}

// Class gives the policy class that a message for a destination waits in. Its
// errors are those of [Senders].
func (m *Maker) Class(ctx context.Context, msg relay.Message, destination string) (policy.Class, error) {
	sender, err := m.sender(ctx, msg, destination)
	if err != nil {
		return "", err
	}
	return msg.Demands(sender).Class(), nil
}

// demands gives the sender of a delivery of msg, and whether anything is demanded
// of it. It leaves of d's history what still counts under that.
func (m *Maker) demands(ctx context.Context, msg relay.Message, d *relay.Delivery) (s policy.Sender, demanding bool, err error) {
	if s, err = m.sender(ctx, msg, d.Lane.Destination); err != nil {
		return s, false, err
	}
	demands := msg.Demands(s)
	d.History = d.History.Under(demands)
	return s, !demands.Opportunistic(), nil
}

// sender gives the demands of the account. A report of our own has none: it must
// arrive. But a disabled account sends nothing at all, for its reports go to
// whomever it, or a thief of its key, named as the sender.
func (m *Maker) sender(ctx context.Context, msg relay.Message, destination string) (policy.Sender, error) {
	if msg.Report {
		msg.Report = false
		_, err := m.Senders.Sender(ctx, msg, destination)
		if !errors.Is(err, account.ErrDisabled) {
			err = nil
		}
		return policy.Sender{}, err
	}
	return m.Senders.Sender(ctx, msg, destination)
}

// mustStrip reports whether a message is a report that has to leave without the
// content it returns, because its account demands something of its messages by
// now, or cannot be asked.
func (m *Maker) mustStrip(ctx context.Context, msg relay.Message, destination string) bool {
	if !msg.Report || msg.HeadersOnly {
		return false
	}
	msg.Report = false
	s, err := m.Senders.Sender(ctx, msg, destination)
	return err != nil || !s.Demands().Opportunistic()
}

// demandsChanged reports whether the sender of a job demands other things by now,
// or cannot be asked.
func (m *Maker) demandsChanged(j *deliver.Job) bool {
	destination := j.Delivery.Lane.Destination
	if m.mustStrip(m.attempt, j.Message, destination) {
		return true
	}
	sender, err := m.sender(m.attempt, j.Message, destination)
	return err != nil || !j.Message.Demands(sender).Equal(j.Message.Demands(j.Sender))
}

// senderUnknown is the result of an attempt whose sender's demands could not be
// had. Mail of a deleted account ends, since nobody is left to demand anything.
// Its report goes without the body, since it is not known what was demanded.
func (m *Maker) senderUnknown(d relay.Delivery, err error) relay.Result {
	if errors.Is(err, account.ErrDisabled) {
		return m.senderDisabled(d)
	}
	if !errors.Is(err, account.ErrNotFound) {
		m.Log.Error("cannot load the sender's demands", zap.Stringer("delivery", d.Key), zap.Error(err))
		return ownFault(d)
	}
	r := relay.FailAll(d, relay.Failure{
		Class: relay.Permanent, Reach: relay.ReachDestination, Reason: events.AccountGone, Status: "5.7.1",
		Reply: relay.Reply{Text: "the sending account no longer exists"},
	}, time.Now())
	r.Demanding = true
	return r
}

// senderDisabled is the result for mail of a disabled account: until its lifetime
// ends, no attempt is made (notMade).
func (m *Maker) senderDisabled(d relay.Delivery) relay.Result {
	now := time.Now()
	if now.Before(m.expiry(d)) {
		return relay.Result{}
	}
	r := relay.FailAll(d, relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachMessage, Reason: events.Expired, Status: "4.7.1",
		Reply: relay.Reply{Text: "the sending account is disabled"},
	}, now)
	r.Demanding = true
	return r
}

// notMade reports whether r is of an attempt that a disabled account does not
// make.
func notMade(r relay.Result) bool { return len(r.Outcomes) == 0 }

// postpone gives back the claim on a delivery of a disabled account, and gives the
// time when it is due again. Who enables the account makes its mail due at once;
// until then, a queue of any length is looked at now and then.
func (m *Maker) postpone(c relay.Claimed) time.Time {
	due := time.Now().Add(m.o.Schedule.RetryMax)
	if end := m.expiry(c.Delivery); end.Before(due) {
		due = end
	}
	return m.giveBack(c, due)
}

// expiry is the end of the lifetime of a delivery.
func (m *Maker) expiry(d relay.Delivery) time.Time {
	return d.Key.Message.Time().Add(m.o.Schedule.Lifetime)
}
