// Package outbox keeps the events that are on their way to the webhooks.
//
//	outbox.go   Tell: rows for the endpoints that want an event, in the batch of the
//	            message; Rows hands them out, Remove removes them
//	numbers.go  the order in which rows are handed out
//	rows.go     a row put together as the event that is sent
//	counts.go   what waits, by endpoint and account
//	shed.go     the oldest rows of an account that has too many are given up
package outbox
