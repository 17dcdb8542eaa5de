// Package rest is what all HTTP calls have in common, and knows no resource: how a
// request finds its call, how parameters are read, how answers and errors are written,
// and what bounds calls.
//
// The way of one request:
//
//	serve.go    Surface: request id, the call, panics, log, metrics; the answer
//	route.go    path, cleaned -> resource -> Route
//	request.go  Request: who asks, for whom; the body, bounded and decoded
//	query.go    parameters of the query, pages, links to other pages
//	fields.go   Object: one JSON object read field by field, all faults at once
//	fault.go    Fault: an error that is meant for the client, in each dialect
//	write.go    the answer, in the dialect of the path
//	limit.go    Limiter: how many requests a key or an account has left
//	slots.go    Slots: calls that wait for hosts of the caller's choosing
//	turns.go    Turns: calls that keep the processor busy, or hold much memory
//	name.go     Find: the account that an operator names
//
// There are two surfaces, each on a listener of its own: the public API and the
// operator's. A call is the same kind of function on both. Parameters that no call
// reads are ignored in the public API, since real clients send extra ones, and
// refused on the operator's, since a misspelled one there is a mistake.
package rest
