// Package bounce writes the report that a transition asks for: a delivery
// status notification to the envelope sender (RFC 3461, 3462, 3464; RFC 6533
// where the message is internationalized).
//
//	bounce.go    Write: the message, its three parts, and what the queue needs to know of it
//	words.go     part one, for people: what became of each recipient, in plain words
//	status.go    part two, for programs: message/delivery-status
//	original.go  part three: the original, or its headers alone
//	clean.go     what strangers wrote, made harmless
//
// Everything quoted from a host, from DNS or from the envelope goes through
// clean.go: none of it can end a field, a line or a part.
package bounce
