// Package events says what happened to a message, in one closed vocabulary
// with three renderings: the webhook object ([Event.AppendJSON]), the log
// line ([Event.MarshalLogObject]) and the metric ([Metrics.Count]).
//
// The flow: relay.Step derives the events of a transition (build.go; bounces
// are classified in classify.go), the store writes the wire form of each
// (wire.go, with jsonobject) into the outbox in the same commit as the state it
// tells of, and events/webhook drains the outbox, signs and posts. An event is
// therefore never lost and never invented. Once committed, it is also logged
// (log.go) and counted (metrics.go).
//
// Text of strangers is made fit to be shown in one place, text.go.
//
// The package is pure: it touches no network, file or database.
package events
