// Package attempt sees one claimed delivery through: it asks what its sender
// demands, makes the attempt, steps the delivery by the result, commits that, and
// tells the events. It decides nothing about when; relay/queue does.
//
//	attempt.go   Maker and Worker: one attempt, from its claim to its commit
//	demands.go   what the sender demands, and what becomes of a delivery whose
//	             sender cannot be asked, is disabled or is gone
//	lease.go     Job: a claimed delivery, whose lease is renewed meanwhile
//	guard.go     the mass-violation guard, which makes deferrals of blocks when
//	             nearly every destination fails its TLS demands
//	suspend.go   what becomes of a delivery that is not attempted because its
//	             destination is dead
//	commit.go    step, commit, tell; the report; giving a claim back
//
// Every way through ends in one of three: the outcome is committed and told; the
// claim is given back, as if there had been no attempt; or, when the store or the
// process fails, the lease ends by itself and the delivery is claimed again.
// Nothing is told that is not committed.
package attempt
