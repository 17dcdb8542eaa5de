package smtp

import (
	"net/netip"

	"tlsrelay/policy/domain"
)

// Name gives our name in EHLO on a connection from a local address.
func (t Target) Name(local netip.Addr) string {
	if t.EHLO == "" {
		return literal(local)
	}
	return t.EHLO
}

// Qualified gives a host name as EHLO takes it (RFC 5321 §4.1.1.1), "" for one that
// is not fully qualified.
func Qualified(hostname string) string {
	if n, err := domain.Parse(hostname); err == nil && n.Qualified() {
		return n.String()
	}
	return ""
}

// literal gives an address as EHLO takes it in place of a name (RFC 5321 §4.1.3).
func literal(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}
