// Package events says what happened to a message, in one closed vocabulary
// with three renderings: the webhook object ([Event.AppendJSON]), the log
// line ([Event.MarshalLogObject]) and the metric ([Metrics.Count]).
//
// The flow: relay.Step derives the events of a transition (build.go; classify.go
// classifies bounces). The store writes the wire form of each (wire.go, with jsonobject;
// what all events of a message share once, common.go) into the outbox, in the same commit
// as the new state. So no event is lost, and none is invented. After the commit it is
// logged (log.go) and counted (metrics.go), and events/webhook signs and posts it.
//
// Text of strangers is made safe to show in one place, text.go.
//
// The package is pure: it touches no network, file or database.
package events
