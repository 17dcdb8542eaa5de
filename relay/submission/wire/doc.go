// Package wire is the layer below go-smtp's server: it owns the bytes of a
// client's connection, in both directions. What a command means is the
// business of the layer above go-smtp, relay/submission.
//
//	config.go    what a Conn needs: Config, and Socket, the connection below TLS
//	conn.go      Conn: hands go-smtp one command line for each read; ends the conversation
//	input.go     what was read and not yet used
//	command.go   a command as clients write it -> as go-smtp reads it
//	content.go   DATA, read past go-smtp, and the chunks of BDAT
//	replies.go   go-smtp's replies -> our words, held until the next wait
//	starttls.go  STARTTLS and the handshake
//
// Because go-smtp gets one line for each read it makes, it never holds bytes
// that we have not judged. Therefore the body of DATA can be read past it, a
// line bound holds for commands and not for content, and a TLS handshake gets
// a fresh go-smtp conversation, so that nothing said in clear survives it
// (RFC 3207 §4.2).
package wire
