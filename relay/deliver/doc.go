// Package deliver carries one message to one destination: it dials the hosts
// of the route, sees to TLS, and hands the message over. It is the only place
// that speaks SMTP to the outside, and it has no opinion on TLS: what was seen
// of a connection goes into a policy.Observed, and Decision.Judge says what is
// next.
//
// The flow of one [Engine.Deliver]:
//
//	engine.go       Engine, Deliver: route, attempt, result
//	attempt.go      phase 1 over hosts and addresses with TLS, phase 2 in clear (tls-policy §3)
//	address.go      one address: which hello, and which after it
//	pool.go         an idle session that is good enough for this message, or leave to dial
//	session.go      dial, greeting, EHLO, STARTTLS, handshake, EHLO: fills policy.Observed
//	name.go         what we call ourselves in EHLO
//	profile.go      the ClientHello: full, compat, no-SNI and probing profiles
//	tickets.go      session tickets, and what is done where they break sessions
//	memory.go       ... and of which addresses that is remembered
//	fault.go        what an error of the network or of crypto/tls means, in one function
//	certificate.go  every fault of a certificate, independent of each other
//	gate.go         ends the attempt when other things are demanded while it waits
//	hostsession.go  one session's share of the attempt: transactions until everybody was asked about
//	again.go        when a transaction is begun anew on another connection at once
//	fit.go          what a host cannot take, by its SIZE and its keywords
//	transaction.go  MAIL, RCPT, DATA or BDAT, in as few round trips as the host allows
//	chunk.go        ... BDAT, and hosts that list CHUNKING without it
//	instep.go       ... which reply answers what
//	peers.go        what an address has shown of all that, and for how long it is believed
//	command.go      the parameters of MAIL and RCPT
//	body.go         the content on the wire: dot-stuffing
//	reply.go        replies, bounded in length and lines; extension.go: what EHLO lists
//	conn.go         the connection under all that: deadlines, buffers, peeking
//	result.go       what the attempt came to: outcomes, evidence, feedback
//
// [Engine.Probe] (probe.go) makes the same attempt, goes as far as MAIL, and
// reports on every host.
//
// Three rules hold throughout. A session carries a message only if what it
// achieved satisfies that message's own decision. Nothing goes in clear to a
// host with STARTTLS before TLS was tried with every host, in vain. And a
// message whose end was sent but never answered goes nowhere else in the same
// attempt, for it may have arrived.
package deliver
