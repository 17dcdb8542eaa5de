// Package policy decides what TLS a delivery must have, whether one host
// gave it, and what follows for the message. It is pure: plain data in,
// plain data out, with the reason beside every answer. The document it
// implements, row by row, is the decision table in the README.
//
// The flow of one delivery attempt:
//
//	settings.go   Settings: what an account demands
//	decide.go     Decide(Sender, Facts) -> Decision: every demand on this host, and whose it is
//	observed.go   Observed: what relay/deliver saw of one connection, judged nowhere else
//	judge.go      Decision.Judge(Observed) -> Verdict: go on, try again otherwise, or leave, and why
//	hello.go      what several connections to one address come to: tickets, compat hello, version probe
//	rows.go       the rows of Judge as a table: words for people, and what each can come to
//	conclude.go   Conclude(verdicts of all hosts, History) -> Ruling: block now, or try later
//	guard.go      Guard: when everybody fails at once, the fault is ours
//	status.go     the enhanced status code of each reason
//
// Two rules hold throughout. A value nobody knows is the strictest one. And a
// stricter demand never yields a looser answer.
package policy
