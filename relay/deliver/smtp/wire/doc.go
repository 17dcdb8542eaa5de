// Package wire is an SMTP connection as octets: commands out, replies in, each
// within a time and a size. It decides nothing.
//
//	conn.go       the connection: deadlines, buffers, TLS under it, looking without reading
//	clocks.go     every clock of an attempt, in one table
//	reply.go      replies, bounded in length and lines, and their fingerprints
//	extension.go  what EHLO lists
//	command.go    the parameters of MAIL and RCPT
//	body.go       the content: dot-stuffing, and the gate it passes
//	fault.go      what an error of the network or of crypto/tls means, in one function
package wire
