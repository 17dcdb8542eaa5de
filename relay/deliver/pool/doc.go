// Package pool holds idle sessions, and the leave to open more: so many connections in
// all, to a host name, and to an address. An address that turns connections away shows
// how many it takes; attempts then wait for one another instead of asking it again.
package pool
