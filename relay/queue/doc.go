// Package queue says when. It holds the lanes, one per destination and policy
// class (tls-policy §9), and sees each delivery from its turn to its commit.
//
// The flow of a delivery:
//
//	accept.go     Accept: split, ask the loop for a place in the lane, store, hand over (the fast path)
//	claim.go      or, from the backlog: Store.Claim, when its lane has room
//	scheduler.go  the loop, the one goroutine that owns the lanes: who is next
//	worker.go     a turn: deliver, step, commit, tell, and back to the loop with what was learned;
//	              lease.go keeps the claim meanwhile, guard.go puts drops off when everybody fails
//
// queue.go starts and ends all that; status.go and guard.go are what operators
// see and touch.
//
// What the loop decides by:
//
//	lane.go       pace: how many attempts at a time a destination bears, and when it rests (pure)
//	share.go      permits: who may have one of the slots that all lanes share;
//	              mayHold: how many of them an account may have (pure)
//	backlog.go    lane and sub: one bounded window on an unbounded backlog
//	lanes.go      which lanes are in memory
//	tenant.go     what an account has in memory, and what it remembers of lanes
//	site.go       hosts and addresses that have all the connections they may have
//	rings.go      turns among lanes, and times to wake at; turns.go, among accounts
//
// The store is the queue; memory is a window on it. A lane holds at most about
// twice its window of claimed deliveries and, for each account with a backlog,
// the time when its first delivery is due. A destination with a million dead
// messages is one small struct that wakes now and then to probe. One with nothing
// due soon is no struct at all: a scan of the store finds it in time.
//
// Nobody takes the slots from the others. What is not proven is shared among
// accounts before it is claimed: an account may have no more in memory than would
// still be free. And an attempt waits for a connection for a moment only; then its
// lane waits without a slot, and takes turns with the others that go there.
//
// Nothing that may block happens on the loop: claims, attempts and commits run
// beside it and report over channels.
package queue
