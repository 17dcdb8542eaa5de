// Package mail keeps the queue: the way of a message through the store.
//
//	accept.go    Accept: message, deliveries, first events and body in one synced batch
//	claim.go     Backlogs, Claim: what waits, by destination queue and account; the
//	             attempt, before it is made
//	commit.go    Commit: new state, events, blocks and report, together or not at all
//	finished.go  Message, Finished, Body: what is there of a message; the sweep that ends
//	             the evidence
//
// Beside the way: operate.go is the operator's hands on the queue, and overview.go his
// view of it.
//
//	write.go     one batch in the making, and what follows in memory once it is committed
//	memory.go    what this process knows beyond the database: claims, writes whose fate is
//	             open
//	replay.go    what is synced later, and what is done when the database failed before
//	fronts.go    where the index of a queue begins
package mail
