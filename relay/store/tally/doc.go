// Package tally counts what is queued: in all, by destination, and by account, which may
// have so much waiting and no more. Held deliveries count.
//
//	tally.go  Admit: may an account have more? Add: what a batch has changed
//	share.go  Reserve: room on the disk, less of it for those who fill it
//	count.go  Count: what there was when the database was opened
//
// It is kept in memory, so that nothing is read for it when a message comes. The index
// says all of it again at the next opening. Until that is counted there seems to be less
// than there is, and what leaves meanwhile may make a count negative.
package tally
