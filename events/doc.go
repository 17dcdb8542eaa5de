// Package events says what happened to a message, in one closed vocabulary
// with three renderings: the webhook object ([Event.AppendJSON]), the log
// line ([Event.Fields]) and the metric ([Metrics.Count]).
//
// The flow: relay.Step derives the events of a transition (event.go), the
// store writes each into the outbox in the same commit as the state it tells
// of (outbox.go), and events/webhook drains the outbox, signs and posts. An
// event is therefore never lost and never invented.
//
// The package is pure: it touches no network, file or database.
package events
