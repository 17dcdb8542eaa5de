// Package bodies keeps the content of messages where the database is not the place for
// it.
//
//	draft.go   a body on its way in: in memory up to 256 KiB, then in a spool file
//	spool.go   large bodies of queued messages, a file each
//	recent.go  small bodies that were accepted a moment ago and are wanted at once
//
// A body up to 256 KiB goes into the database with its message. A larger one is made
// durable in its spool file before the batch that names it, and its file goes after
// the batch that ends the message. Recover compares the two when the database is
// opened.
package bodies
