package relay

import (
	"context"
	"errors"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy/account"
)

// Transition is everything that one step of a delivery changes. The store
// commits it whole or not at all.
type Transition struct {
	Message Message
	Before  Delivery // as claimed; its place in the queue is given up
	After   Delivery
	// Done: no recipient waits any more. After is kept as evidence and, with
	// the message's last delivery, the body goes.
	Done   bool
	Events []events.Event
	Blocks []events.Block
	// Notice asks for a DSN. relay/bounce turns it into Report before the
	// commit.
	Notice *Notice
	Report *Report
	// Sync: the commit is on stable storage before it returns. Only the end of a
	// delivered message does without: if a crash takes it back, the message is
	// delivered twice, and none is lost.
	Sync bool
}

// Notice asks for one DSN to the envelope sender (RFC 3464).
type Notice struct {
	Recipients []NoticeRecipient
	// HeadersOnly: the original's body must not go along, because there was a TLS
	// demand on the message, and the report itself may travel in clear.
	HeadersOnly bool
	// WillRetryTo is the end of the queue lifetime, for delayed recipients.
	WillRetryTo time.Time
}

// Action is the Action field of RFC 3464 §2.3.3.
type Action string

// The actions this relay reports.
const (
	ActionFailed  Action = "failed"
	ActionDelayed Action = "delayed"
	ActionRelayed Action = "relayed"
)

// NoticeRecipient is one recipient of a Notice.
type NoticeRecipient struct {
	Action     Action
	Recipient  Recipient
	Status     string // enhanced status code
	Diagnostic string // the host's reply, or our words
	Remote     bool   // Diagnostic is a host's reply ("smtp" type)
	RemoteMTA  string
	Demand     bool           // a demand of the sender's side ended it
	Hosts      []HostEvidence // for the X- fields of a block
}

// Report is a message made by the relay, accepted in the same commit as the
// transition that asked for it.
type Report struct {
	Message    Message
	Deliveries []Delivery
	Body       []byte
}

// Claimed is a delivery that the caller now works on, and its message.
type Claimed struct {
	Message  Message
	Delivery Delivery
}

// Backlog is what waits in one lane for one account.
type Backlog struct {
	Lane    Lane
	Account account.ID
	Due     time.Time // of the first
}

// Errors that a Store returns; callers match them with errors.Is. All but
// ErrNotFound, ErrStale and ErrUnrecordable may pass by themselves.
var (
	// ErrNotFound is the error of a message or delivery that is not there.
	ErrNotFound = errors.New("relay: not found")
	// ErrStale is the error of a transition whose delivery has been claimed
	// or taken by somebody else since: nothing of it was applied.
	ErrStale = errors.New("relay: the delivery is no longer as claimed")
	// ErrNoSpace is the error of a message that the disk has no room for;
	// submission answers 452 4.3.1.
	ErrNoSpace = errors.New("relay: no space for another message")
	// ErrAccountFull is the error of a message of an account that has as much
	// waiting as it may; submission answers 452 4.3.1.
	ErrAccountFull = errors.New("relay: too much of the account's mail is waiting")
	// ErrUnavailable is the error of a store that cannot read or write at
	// the moment; submission answers 451.
	ErrUnavailable = errors.New("relay: the store is not available")
	// ErrUnrecordable is the error of what there is no way to write down:
	// nothing of it was applied. It should not happen, but part of an outcome
	// comes from strangers, and waiting would not help.
	ErrUnrecordable = errors.New("relay: cannot be recorded")
	// ErrNoBody is the error of a queued message whose body is gone. It does
	// not happen by our own doing, and it must not lose the message: the
	// delivery is deferred until somebody has looked.
	ErrNoBody = errors.New("relay: the body of the message is missing")
)

// Store keeps the queue. Its methods are safe for concurrent use, and what
// they return an error for has not happened, but for what Commit says.
type Store interface {
	// NewDraft begins a body of an account's message.
	NewDraft(account.ID) Draft

	// Accept makes a message, its deliveries and their first events durable:
	// when it returns nil they are on stable storage. A delivery whose
	// Attempts is 1 counts as claimed by the caller; the others wait from
	// their Due on. Accept ends the draft, whatever it returns.
	Accept(ctx context.Context, m Message, ds []Delivery, body Draft, evs []events.Event) error

	// Backlogs calls yield for every lane and account with anything queued,
	// due or not, without reading the deliveries themselves.
	Backlogs(ctx context.Context, yield func(Backlog) bool) error

	// Claim takes up to n deliveries of one lane and account that are due at
	// now, oldest first, records an attempt on each and moves its Due to
	// lease(attempts). It passes over what inHand reports: deliveries that the
	// caller still works on although their lease has ended. A nil inHand
	// reports none. next is when the one after them is due, zero when there is
	// none.
	Claim(ctx context.Context, lane Lane, who account.ID, now time.Time, n int, lease func(attempts int) time.Time, inHand func(DeliveryKey) bool) (got []Claimed, next time.Time, err error)

	// Commit makes a transition happen. After an error other than ErrNotFound,
	// ErrStale and ErrUnrecordable it may have; to commit the same transition
	// again is safe, and nil then tells that it has happened, once.
	Commit(ctx context.Context, t Transition) error

	// Body opens the stored content of a message.
	Body(ctx context.Context, id MessageID) (Body, error)
}
