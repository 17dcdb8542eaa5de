// Package content turns the content of a message, as a client sends it, into
// what the relay stores, piece by piece as it streams by. It is pure: it knows
// neither sessions nor sockets, and writes to a Sink.
//
//	dots.go      Undot: where DATA ends, and its dot-stuffing
//	rewriter.go  Rewriter: the way of a piece, through the files below
//	newlines.go  CRLF becomes the only line end
//	scan.go      are there octets above 127, or a line that ends a message elsewhere?
//	header.go    the header section, kept in memory until it is whole
//	smtpapi.go   X-SMTPAPI is read, and removed
//	received.go  Received is added, and what else is missing
//	fault.go     why content is refused
package content
