// Package queue says when. It keeps a destination queue for each destination and
// policy class (relay.Lane), and sees each delivery from its turn to its commit.
//
// The flow of a delivery:
//
//	accept.go      Accept: split, ask the loop for places, store, hand over (the
//	               fast path)
//	claim.go       or, out of the backlog: Store.Claim, when its destination queue
//	               has room
//	scheduler.go   the loop, the one goroutine that owns all queues: who is next
//	attempt/       one attempt: deliver, step, commit, tell; and back to the loop
//	               with what was learned
//
// queue.go starts and ends all that. scan.go asks the store what is queued.
// status.go is what operators see and touch.
//
// What the loop decides by:
//
//	fair/          who gets the next slot, as pure decisions: the concurrency window
//	               and cool-off of a destination, the quotas, the turns
//	queues.go      destination queue and account queue: one bounded window on an
//	               unbounded backlog
//	due.go         when the next delivery of an account queue is due
//	quota.go       the slots that are taken, and what each account has of them
//	crowded.go     hosts and addresses that have all the connections they may have
//	suspend.go     what is overdue at a dead destination
//	memory.go      which queues are in memory; learned.go, what is remembered of
//	               those that are not
//	inhand.go      the deliveries that no claim may give out again
//	alarm.go       times to wake at
//
// The store is the queue; memory is a window on it. A destination queue holds at
// most about twice its concurrency window of claimed deliveries and, for each
// account with a backlog, the time when its first delivery is due. A destination
// with a million dead messages is one small struct that wakes now and then to
// probe. One with nothing due soon is no struct at all: a scan of the store finds
// it in time.
//
// No account takes the slots from the others. Slots for destinations that are not
// healthy are shared among accounts before anything is claimed: an account may
// have no more in memory than would still be free. And an attempt waits for a
// connection for a moment only; then its destination queue waits without a slot,
// and takes turns with the others that go to the same host.
//
// Nothing that may block happens on the loop: claims, attempts and commits run
// beside it and report over channels.
package queue
