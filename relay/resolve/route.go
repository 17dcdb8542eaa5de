package resolve

import (
	"net/netip"

	"tlsrelay/policy"
	"tlsrelay/policy/domain"
	"tlsrelay/relay"
)

// Route is where mail for one destination goes.
type Route struct {
	Recipient domain.Name // zero for an address literal
	Hosts     []Host      // in the order in which they are to be tried
	// Unproven: whether the resolver validates could not be tested yet, so that
	// what Facts.MX says of an unsigned MX means nothing.
	Unproven bool
}

// Host is one host of a route, with every address it may be dialled at.
type Host struct {
	Name  string // for people, evidence and pool keys
	Facts policy.Facts
	Addrs []netip.AddrPort
	// Failure is why there are no Addrs; the host then counts as unreachable.
	Failure *relay.Failure
	// SNI is the server name to send; "" for an address literal.
	SNI string
	// Preference is that of the MX record: hosts with a lower one come first.
	Preference uint16
	// RouteOverride marks a host that the operator's configuration named
	// instead of an MX record.
	RouteOverride bool
}
