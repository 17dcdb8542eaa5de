// Package store keeps everything that must outlive the process, in one database and a
// folder of spool files under the data directory. One type, [Store], is the queue of
// relay.Store, the accounts of account.Store, the outbox and endpoints of
// events/webhook, the block list and the operator's view of the queue. Each of its calls
// is answered by a room below; this package opens the rooms and runs them.
//
//	mail/     the way of a message: accept, claim, commit; the evidence that stays
//	outbox/   events on their way to the webhooks
//	tenants/  accounts, API keys, webhook endpoints, rules, block list
//	bodies/   drafts, spool files, recent bodies
//	tally/    what is queued, counted; what an account may have
//	engine/   pebble on a disk that fails or is full
//	layout/   the keys and values of the database
//
// Each room imports only rooms below it. tenants stands on a small interface of its own
// and layout, so that another engine serves it as well.
//
// # Locks
//
// A lock may be held while one further down is taken, never the other way round.
//
//	lock                       guards                                    while it is held
//	tenants.Tenants.writing    writers of accounts, keys, endpoints,     a synced write
//	                           rules: one at a time
//	tenants.Tenants.blocking   one account's block rows; nobody takes    a synced write
//	                           two
//	mail.Store.sweeps          sweeps: one at a time                     a sweep
//	engine.Engine.mu, read     the open database: [engine.Engine.Enter]  one call
//	engine.Engine.mu, write    opening and closing it; mail.sweptTo      nobody is in
//	engine.opening.mu          the count of what was there when the      the count; closing
//	                           database was opened                       waits for it
//	mail.Store.stripes         one message's deliveries; nobody takes    a write, synced
//	                           two                                       or not
//	outbox.Outbox.removing     removal of rows: one at a time            a write
//	tenants.memory.mu          the copy of what tenants have             no input or output
//	outbox.Outbox.mu           numbers, counts, what is removed          no input or output
//	tally.Tally.mu             counts                                    no input or output
//	mail.memory.mu             claims, writes whose fate is open         taking back, alone
//	mail.fronts.mu             where the index of a queue begins         no input or output
//	bodies.Bodies.mu           which bodies are spooled or recent        no input or output
//	engine.room.mu             the free space                            asking the disk
//
// Those from outbox.Outbox.mu on are leaves: nobody takes another lock while holding
// one. Who has entered the engine does not enter again: a failed instance that waits to
// be closed would never get its turn.
//
// # When the disk fails
//
// The engine stops at the first write that fails, and opens the database anew
// (engine/doc.go). A message whose Accept failed on the way may have reached the log all
// the same, and may even have been claimed while the log was on its way to the disk; what
// is left of it is taken back when the database is opened. What was delivered, and
// committed without waiting for the disk, is replayed (mail/replay.go).
package store
