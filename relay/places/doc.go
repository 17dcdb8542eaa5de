// Package places keeps a listener open to callers with a key, whatever callers
// without one do. Submission and the HTTP listeners share it: places for connections
// are few, and who has shown a key never waits for who has not.
//
//	places.go    Pool: who has a place, and who gives way to whom
//	failures.go  Failures: who shows wrong keys too often is answered slowly
//	source.go    what counts as one source of connections
//	seldom.go    Seldom: what strangers can repeat is logged once a minute
//
// It knows connections by what it asks of them (Conn); reading, writing and the words
// for a client are the listener's.
package places
