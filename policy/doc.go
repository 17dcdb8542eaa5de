// Package policy decides what TLS a delivery must have, whether one host gave
// it, and what follows for the message. It is pure: plain data in, plain data
// out, with the reason beside every answer. DECISIONS.md tells the decision row by
// row; `go generate` writes it, and the table in the README, from rows.go.
//
// The flow of one delivery attempt:
//
//	settings.go   Settings: what an account demands
//	demands.go    Sender.Demands -> Demands: what every host must give, and who demands it;
//	              Demands.On(Facts) -> Decision: the same for one host, with its names
//	observed.go   Observed: what relay/deliver saw of one connection, judged nowhere else
//	rows.go       the decision table: what a host does, and what follows under O, T and V
//	judge.go      Decision.Judge(Observed) -> Verdict: the row, and its answer
//	hello.go      JudgeAddress, JudgeProbe: what several connections to one address come to
//	conclude.go   Conclude(Demands, verdicts of all hosts, History) -> Ruling: block now, or try later
//	guard.go      Guard: when everybody fails at once, the fault is ours
//	status.go     Status: the enhanced status code of each reason
//
// Two rules hold throughout. An unknown value counts as the strictest one. And a
// stricter demand never yields a looser answer.
package policy

//go:generate go test -run TestPages . -args -update
