package relay

import (
	"context"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy/account"
)

// Act is what an operator does to queued deliveries.
type Act string

// The acts. A drop makes a [Transition] of its own (see [Delivery.Drop]), so
// it is done by whoever commits; the others are the store's.
const (
	ActRetry   Act = "retry"   // due now
	ActHold    Act = "hold"    // not tried until released
	ActRelease Act = "release" // no longer held
	ActDrop    Act = "drop"    // given up, with events and report
)

// Selection picks queued deliveries. Each field that is set narrows it; the
// zero Selection picks everything.
type Selection struct {
	Destination string     `json:"destination,omitempty"` // Address.Destination
	Account     account.ID `json:"account,omitempty"`
	Message     MessageID  `json:"message,omitzero"`
	Held        bool       `json:"held,omitempty"` // only held ones
}

// AgeBuckets are the upper bounds of [QueueRow.Ages]; one bucket more holds
// what is older.
func AgeBuckets() []time.Duration {
	return []time.Duration{
		5 * time.Minute, 15 * time.Minute, time.Hour, 4 * time.Hour,
		12 * time.Hour, 24 * time.Hour, 48 * time.Hour, 72 * time.Hour,
	}
}

// QueueRow is the queue of one destination.
type QueueRow struct {
	Destination string `json:"destination"`
	Waiting     int    `json:"waiting"` // being tried right now included
	Held        int    `json:"held"`
	// Ages counts the deliveries, held ones too, by the age of their message
	// (AgeBuckets).
	Ages   []int     `json:"ages"`
	Oldest time.Time `json:"oldest"`        // acceptance of the oldest message
	Due    time.Time `json:"due,omitzero"`  // of the next attempt
	Reason string    `json:"reason"`        // token of the last failure, of the delivery due next
	Reply  string    `json:"reply"`         // its last words
	More   bool      `json:"more,omitzero"` // counting stopped here: there are at least so many
}

// Queued is one delivery of the queue and its message, as an operator sees it.
type Queued struct {
	Message  Message  `json:"message"`
	Delivery Delivery `json:"delivery"`
}

// Operator is what the operator's hands need of a store, beside [Store].
type Operator interface {
	// Overview gives the queue by destination, in the order of their names: limit
	// of them (0: 100) behind the name after, and how many more there are.
	Overview(ctx context.Context, now time.Time, after string, limit int) (rows []QueueRow, more int, err error)
	// Queue lists selected deliveries, due first within a lane, held ones
	// last: limit of them (0: 100) after the first offset.
	Queue(ctx context.Context, s Selection, offset, limit int) ([]Queued, error)
	// Count gives how many deliveries are selected after the first offset; it
	// counts no further than most.
	Count(ctx context.Context, s Selection, offset, most int) (int, error)
	// Message gives a message and its deliveries, waiting and finished, by
	// number; ErrNotFound when it is unknown, or past the retention.
	Message(ctx context.Context, id MessageID) (Message, []Delivery, error)
	// Act retries, holds or releases what is selected and says how many
	// deliveries that changed. A delivery being tried is not retried, and a
	// hold lets its attempt end first. ActDrop is an error: see Take.
	Act(ctx context.Context, a Act, s Selection, now time.Time) (int, error)
	// Take claims one delivery, held or not, waiting or being tried, without
	// counting an attempt: until the lease ends nobody else may have it, and
	// what a worker that has it already commits is refused with ErrStale.
	Take(ctx context.Context, key DeliveryKey, lease time.Time) (Claimed, error)
	// Finished calls yield with the finished deliveries of an account (""
	// means all) whose messages were accepted at since or later, oldest first.
	Finished(ctx context.Context, who account.ID, since time.Time, yield func(Delivery) bool) error
}

// LastReason gives the reason and the words of d's newest attempt, for
// people; both may be "".
func (d Delivery) LastReason() (events.Reason, string) {
	var reason events.Reason
	if d.Last != nil {
		reason = d.Last.Reason
	}
	for _, r := range d.Recipients {
		if r.State == Waiting && r.Reply != "" {
			return reason, r.Reply
		}
	}
	return reason, ""
}
