// Package deliver carries one message to one destination: it goes through the hosts of
// the route and hands the message over to the first that may have it. It has no opinion
// on TLS: what was seen of a connection is in a policy.Observed, and Decision.Judge says
// what is next.
//
// The flow of one [Engine.Deliver]:
//
//	engine.go       Engine, Deliver: route, attempt, result
//	attempt.go      phase 1: hosts and addresses with TLS; phase 2: in clear
//	address.go      one address: which ClientHello, and which after it
//	ticket.go       ... and what follows where a session ticket broke a session
//	pool            an idle session that is good enough for this message, or leave to dial
//	smtp            the client: opens a session, runs transactions
//	gate.go         ends the attempt when other things are demanded while it waits
//	hostsession.go  one session's share of the attempt: transactions until everybody was asked about
//	again.go        when a transaction is begun anew on another connection at once
//	fit.go          what a host cannot take, by its SIZE and its keywords
//	result.go       what the attempt came to: outcomes, evidence, feedback
//
// [Engine.Probe] (probe.go) makes the same attempt as far as MAIL, and reports on every
// host.
//
// Three rules hold throughout. A session carries a message only if what it achieved
// satisfies that message's own decision. Nothing goes in clear to a host with STARTTLS
// before TLS was tried with every host, in vain. And a message whose end was sent but
// never answered goes nowhere else in the same attempt, for it may have arrived.
package deliver
