// Package limit bounds what one account takes at submission, so that it takes
// nothing from the others: the memory of what it is sending (memory.go), and
// the recipients of an hour (recipients.go). It is pure arithmetic; what a
// client is told at a bound is the session's to say.
package limit
