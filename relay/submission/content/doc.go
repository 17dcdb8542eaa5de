// Package content turns the content that a client sends into the content that
// the relay stores, piece by piece as it streams by. It knows no sessions and no
// sockets: it reads pieces, and writes to a Sink.
//
//	dots.go      Undot: finds the end of DATA, removes the dot-stuffing
//	rewriter.go  Rewriter: takes a piece through the files below
//	newlines.go  makes CRLF the only line end
//	scan.go      looks for octets above 127, and for a line that ends a message elsewhere
//	header.go    splits the header section, which is kept in memory until it is complete
//	smtpapi.go   reads X-SMTPAPI
//	received.go  makes the Received field
//	summary.go   Summary: what the rest of the relay learns of the content
//	fault.go     Fault: why content is refused
package content
