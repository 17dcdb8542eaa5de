// Package unread looks, without reading, whether a connection has something to read:
// what the other side has sent, or its end. Delivery asks it of a session that it
// kept (relay/deliver), and the listeners of a connection that should give its place
// away (relay/places).
package unread
