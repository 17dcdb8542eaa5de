// Package relaytest is a small honest world for tests and for `tlsrelay
// demo`: real sockets, real TLS, fake names. Nothing in it leaves loopback.
//
//	world.go       World: a zone, a CA and hosts on a block of 127.0.0.0/8, all on one port
//	zone.go        Zone: a DNS server with programmable records ...
//	zonefault.go   ... and programmable trouble
//	ca.go          CA: a certificate authority
//	cert.go        Cert: certificates of it, good, and bad in every way that there is a reason for
//	script.go      Script: what a receiving host does at each step, by the rows of policy/rows.go
//	host.go        Host: one such host, and everything it saw
//	session.go     one connection: commands and replies ...
//	transfer.go    ... the message itself ...
//	handshake.go   ... and what happens after the 220 to STARTTLS
//	hello.go       the few fields of a ClientHello that scripts look at
//	receiver.go    Receiver: an endpoint for webhooks
//	smuggling.go   what some servers take for the end of a message
//	series.go      a look at metrics: no series is born late
//	tb.go          the same with a testing.TB at hand
//
// A world of three lines:
//
//	w, err := relaytest.NewWorld()
//	h, err := w.AddHost("mx1.example.test", relaytest.Script{NoTLS: true})
//	// mail for anybody@example.test now goes to h; ask w.Zone.Addr() for it
//
// The whole of 127.0.0.0/8 has to be dialable, as it is on Linux.
package relaytest
