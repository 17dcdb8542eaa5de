//go:build linux

// Command benchrelay measures a relay from the outside: a generator submits mail over
// SMTP, bin/tlsrelay delivers it, and a sink with receiving hosts and their DNS takes it.
// Each is a process of its own, so that the CPU time of the relay is its own. All are on
// loopback.
//
//	main.go      flags; the same program again as `sink` and as `generate`
//	scenario.go  what can be measured
//	measure.go   one measurement: warm up, run, wait for the last arrival, compare the clocks
//	sink.go      the receiving side: DNS zone, hosts, when each message arrived
//	receiver.go  ... one connection to a host
//	line.go      ... and what makes its answers late
//	generate.go  the sending side: connections, pace, when each 250 came
//	client.go    ... one connection to the relay
//	child.go     how the processes talk: net/rpc over pipes
//	relay.go     the relay under measurement
//	postfix.go   Postfix in its place, under the same conditions
//	proc.go      CPU, memory and syncs, as the kernel counts them
//	beside.go    healthy mail through two relays in turn, one of them with trouble beside it
//	backlog.go   what a million messages for a dead destination cost the others
//	tarpit.go    what two hundred hosts that never answer cost the others
//	report.go    the table, and the ratios to Postfix
//
// A message is known by a token, the local part of its recipient. Latency is
// from the moment the generator has read the 250 to the moment a host has
// read the end of the message; both clocks are the machine's.
package main
