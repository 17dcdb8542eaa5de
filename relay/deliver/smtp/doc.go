// Package smtp is the client: it opens a session with one address of a host, and runs
// transactions over it. It fills in policy.Observed and asks the decision at each step
// what is next; it knows no other host, no queue and no history.
//
//	open.go         dial, greeting, EHLO, STARTTLS, handshake, EHLO: Client.Open
//	name.go         what we call ourselves in EHLO
//	session.go      an open session: what it showed, and how much it may still carry
//	mail.go         what a transaction carries
//	transaction.go  MAIL, RCPT, DATA or BDAT, in as few round trips as the host allows
//	chunk.go        ... BDAT, and hosts that list CHUNKING without it
//	instep.go       ... which reply answers what
//	outcome.go      what the answers of a transaction amount to
//
// Below it are two rooms, handshake for TLS and wire for the octets. What is learned of
// an address stays in package peer.
package smtp
