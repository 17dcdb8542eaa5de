// Package limit bounds what one account may use at submission, so that the others
// have theirs: memory for what it sends (memory.go), and recipients in an hour
// (recipients.go). It only counts. The session asks, and replies to the client.
package limit
