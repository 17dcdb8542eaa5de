// Package wire is the layer below go-smtp's server. It owns the bytes of a
// client's connection, in both directions. What a command means is decided in
// the layer above go-smtp, relay/submission.
//
//	config.go    what a Conn needs: Config, and Socket, the connection below TLS
//	conn.go      Conn: gives go-smtp one command line for each read, and ends the conversation
//	input.go     what was read and is not used yet
//	command.go   a command as clients write it -> as go-smtp reads it
//	content.go   DATA, read past go-smtp, and the chunks of BDAT
//	replies.go   go-smtp's replies -> our texts, sent together at the next wait
//	starttls.go  STARTTLS and the handshake
//
// go-smtp gets one line for each read it makes, so it never has bytes that this
// layer has not seen as a command. That has three uses. The content of DATA is
// read past go-smtp. The bound on a line applies to commands and not to content.
// And the TLS handshake begins a new go-smtp conversation, so that nothing
// which was said in clear survives it (RFC 3207 §4.2).
package wire
