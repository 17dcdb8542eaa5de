// Package peer remembers addresses of receiving hosts: what each has shown of itself
// (peers.go), and which of them something was noted of lately (memory.go). All of it may
// be forgotten: what is lost is a round trip or a connection, never the decision.
package peer
