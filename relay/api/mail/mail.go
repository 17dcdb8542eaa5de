// Package mail is what became of mail: the block lists, messages with their evidence,
// and the operator's hands on the queue.
//
//	blocks.go     the block list of an account
//	messages.go   a message and what was tried for it
//	queue.go      what waits, by destination and by message; retry, hold, release, drop;
//	              the mass-violation guard
//
// An account sees its own mail; the operator sees all of it, in the forms in which the
// relay keeps it.
package mail

import (
	"context"

	"tlsrelay/events"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// Calls are the calls, and what they ask.
type Calls struct {
	Accounts account.Store
	Blocks   events.BlockStore
	Store    relay.Operator
	Queue    Queue
	// Lanes lists the state of the destination queues in memory, limit of them, and says
	// how many more there are.
	Lanes func(limit int) (some any, more int)
}

// Queue is the running queue, as far as operators reach into it. relay/queue
// implements it.
type Queue interface {
	// Rescan tries everything now that the store has made due.
	Rescan()
	// Drop gives up a delivery taken from the store.
	Drop(ctx context.Context, c relay.Claimed, words string) error
	// GuardHolds reports whether the mass-violation guard delays drops.
	GuardHolds() bool
	// ReleaseGuard lets drops go on.
	ReleaseGuard()
}
