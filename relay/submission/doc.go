// Package submission accepts mail over SMTP (RFC 6409): the door by which a
// message enters the relay. Its 250 means that the message is durable.
//
// go-smtp's server holds the conversation. What it leaves to others stands
// around it: one layer below, which owns the bytes (relay/submission/wire), and
// one above, which owns the meaning (this package). The way of a message:
//
//	listen.go    accept a connection, or turn it away
//	proxy.go     or read from a balancer whose client it is, first
//	             (relay/places: strangers give way to clients with a key)
//	peer.go      the socket: deadlines, and how it is ended from outside;
//	             quickack_linux.go: acknowledgements while content comes in
//	wire         go-smtp is handed one command at a time, and its replies get our texts
//	session.go   AUTH, MAIL and RCPT, strictly; whether the key still holds
//	auth.go      AUTH PLAIN and LOGIN; a source that fails too often is slowed (relay/places)
//	watch.go     sessions end with their key or account
//	data.go      DATA and BDAT, through content, into a relay.Draft;
//	             Intake.Accept, then 250 with the id
//	content      what is done to the content as it streams by
//	limit        what one account may take of memory, and of recipients in an hour
//	replies.go   errors -> replies
package submission
