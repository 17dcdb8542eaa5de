// Package handshake is what is particular to TLS between mail hosts: the ClientHello
// that a decision asks for, and what a certificate shows.
//
//	profile.go      ClientHello profiles: full, compat, without a server name, probing
//	tickets.go      session tickets, and what is done where they break sessions
//	certificate.go  every fault of a certificate, independent of each other
package handshake
