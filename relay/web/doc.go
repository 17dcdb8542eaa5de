// Package web is how HTTP comes in, at the public API and at the operator's
// listener: the connections, their places and their clocks, and nothing of what is
// asked for.
//
//	server.go   Server: bind, accept, serve, drain
//	conn.go     one connection: its deadlines, and how it ends for another one
//	caller.go   Shown, Denied: what a handler says of a request's key
//	metrics.go  what is open, and who had to go
//
// A connection begins as a stranger's. Strangers have a fifth of the places and
// little time; the oldest of them goes for the next, so that whoever has a key always
// gets as far as showing it. The first request with a right key makes the connection
// that account's (relay/places). An answer to a stranger ends its connection, and so
// does the answer to a wrong key: keep-alive is for callers with a key.
//
// The clocks of one connection:
//
//	what                        how long                        where
//	TLS handshake               headerTime                      net/http
//	a request's header          headerTime                      net/http
//	a stranger, all in all      strangerTime, a sixth of it     places.Limits.ShowTime
//	                            while places run out
//	a request with its body     requestTime                     net/http
//	an answer                   Options.WriteTime               net/http
//	between requests            idleTime                        net/http
//	a request, before it may    busyTime, and flushTime for     conn.Overdue
//	end for another account's   the answer
//	the rest of a body that     lingerTime                      Server.handler
//	nobody wants
//	a wrong key's answer        slowAnswer, beyond the bound    places.Failures
//
// HTTP/2 is not offered: one connection would be many requests at a time, each with a
// key of its own, and the bounds here are of connections.
package web
