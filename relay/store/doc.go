// Package store keeps everything that must outlive the process, in one
// pebble database and a folder of spool files under the data directory. One
// type, [Store], is the queue of relay.Store, the accounts of account.Store,
// the outbox and endpoints of events/webhook, the block list and the
// operator's view of the queue.
//
// The way of a message through it:
//
//	draft.go     NewDraft: the body, in memory up to 256 KiB, then in a spool file
//	accept.go    Accept: message, deliveries, first events and body in one synced batch
//	claim.go     Backlogs, Claim: what waits, by lane and account; the attempt, before it is made
//	commit.go    Commit: new state, events, blocks and report, together or not at all
//	outbox.go    Rows, Remove: events on their way to the webhooks; rows.go is their
//	             form, boxes.go counts them and gives up what is too much
//	finished.go  Message, Finished: the evidence that stays; the sweep that ends it
//
// Beside it: operate.go is the operator's hands on the queue; accounts.go,
// endpoints.go, overrides.go and blocks.go keep what the API changes. keys.go
// is the layout of the database, records.go the form of its values. tally.go counts what waits, for whom and
// where; cuts.go says where the tables end, and warm.go keeps the bodies that
// are wanted at once. room.go is who may write how much, ballast.go what is kept for
// an opening of the database on a full disk.
//
// # When the disk fails
//
// Pebble has no way back from a failed write to its log: it panics, or calls
// Logger.Fatalf, which is meant to end the process. A relay must not die of a
// full disk, so fence.go stands between pebble and the files. The first write
// that fails trips the fence: from then on nothing of that database instance
// reaches the disk, pebble believes that all is well, and every call of ours
// that was not finished before returns relay.ErrUnavailable or ErrNoSpace. On
// disk this is a crash at that point, which pebble recovers from. Run
// (engine.go) then closes the instance and opens the database anew, until
// that works. A message whose Accept failed on the way may have reached the
// log all the same, and may even have been claimed while the log was on its way
// to the disk; what is left of it is taken out when the database is opened. What was
// delivered, and committed without waiting for the disk, is committed anew
// (redo.go).
package store
