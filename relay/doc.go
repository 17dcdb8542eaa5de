// Package relay is the life of a message as plain data and pure decisions.
// Its sub-folders touch the world, and read down they follow a message:
//
//	submission   accepts it:   Store.Accept, then 250
//	queue        says when:    Store.Claim, which records the attempt before it is made
//	resolve      says where:   the hosts of the recipient domain
//	deliver      tries:        sessions, TLS, transactions -> Result
//	(here)       concludes:    Delivery.Step(Result, now) -> Transition
//	store        commits:      Store.Commit(Transition): state, events, blocks, report, together
//	bounce       tells:        the report of RFC 3464 that a Transition asks for
//
// The unit of work is the [Delivery]: one message to one destination, its
// recipients inside. The unit of change is the [Transition]. What failed, and
// how far that reaches, is a [Failure]; everything that branches on an error
// reads those two words.
package relay
