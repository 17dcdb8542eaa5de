package places

import (
	"net"
	"net/netip"
)

// Source is what counts as one source: an IPv6 host can use its whole /64.
func Source(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// AddressOf gives the address at the other end of a connection; not valid where it
// has none.
func AddressOf(c net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
