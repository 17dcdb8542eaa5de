// Package submission accepts mail over SMTP (RFC 6409): the door by which a
// message enters the relay. Its 250 means that the message is durable.
//
// go-smtp's server holds the conversation. What it leaves to others stands
// around it: one layer below, which owns the bytes, and one above, which owns
// the meaning. The way of a message:
//
//	listen.go       accept a connection, or turn it away
//	proxy.go        or read from a balancer whose client it is, first
//	                (relay/places: strangers give way to who has shown a key)
//	peer.go         the socket: deadlines, and how it is ended from outside;
//	                quickack_linux.go: acknowledgements while content comes in
//	conn.go         the layer below go-smtp: hands it one command line at a time,
//	                carries STARTTLS out itself, holds replies until the next wait
//	input.go        what was read and not yet used
//	dots.go         the end of DATA, and nothing else that looks like one
//	replies.go      our words for go-smtp's, errors -> replies
//	command.go      commands as clients write them -> as go-smtp reads them
//	session.go      the layer above: MAIL and RCPT, strictly; whether the key still holds
//	watch.go        sessions end with their key or account
//	auth.go         AUTH PLAIN and LOGIN; who fails too often is slowed (relay/places)
//	data.go         DATA and BDAT: newlines.go, scan.go, header.go, smtpapi.go, received.go -> relay.Draft
//	                Intake.Accept, then 250 with the id
//
// Because go-smtp gets one line for each read it makes, it never holds bytes
// that we have not judged. Therefore the body of DATA can be read past it, a
// line bound holds for commands and not for content, and a TLS handshake gets
// a fresh go-smtp conversation, so that nothing said in clear survives it
// (RFC 3207 §4.2).
package submission
