package resolve

import (
	"maps"
	"net"
	"net/netip"
	"slices"

	"code.dny.dev/ssrf"
)

// network is what this machine is on the net, as far as a route depends on it.
type network struct {
	local  map[netip.Addr]bool // addresses of its interfaces
	v4, v6 bool                // it has a route out
}

// guard knows the address ranges that no stranger's MX record may send us to.
var guard = ssrf.New(ssrf.WithAnyPort(), ssrf.WithAnyNetwork())

// lookAround finds out. With source addresses configured, only their families
// can be dialled.
func lookAround(sources []netip.Addr) *network {
	n := &network{local: map[netip.Addr]bool{}}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(p.IP); ok {
				n.local[ip.Unmap()] = true
			}
		}
	}
	// A root server's addresses stand for the Internet.
	n.v4 = hasRoute("udp4", "198.41.0.4:53") && has(sources, netip.Addr.Is4)
	n.v6 = hasRoute("udp6", "[2001:503:ba3e::2:30]:53") && has(sources, netip.Addr.Is6)
	if !n.v4 && !n.v6 {
		// Without any way out nothing is lost by trying.
		n.v4, n.v6 = true, true
	}
	return n
}

func (n *network) equal(o *network) bool {
	return n.v4 == o.v4 && n.v6 == o.v6 && maps.Equal(n.local, o.local)
}

func has(sources []netip.Addr, family func(netip.Addr) bool) bool {
	return len(sources) == 0 || slices.ContainsFunc(sources, family)
}

// hasRoute asks the kernel for a route: connecting a UDP socket sends nothing.
func hasRoute(network, address string) bool {
	c, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// reachable reports whether the address's family can be dialled from here. An
// address that cannot is skipped, for that is no evidence against its host.
func (n *network) reachable(a netip.Addr) bool {
	switch {
	case a.IsLoopback():
		return true
	case a.Is4():
		return n.v4
	}
	return n.v6
}

// ours reports whether a submission listener of ours answers at a.
func (n *network) ours(a netip.AddrPort, listening []netip.AddrPort) bool {
	for _, l := range listening {
		if l.Port() != a.Port() {
			continue
		}
		if l.Addr() == a.Addr() || l.Addr().IsUnspecified() && (n.local[a.Addr()] || a.Addr().IsLoopback()) {
			return true
		}
	}
	return false
}

// dialable reports whether mail may go to a at all. allowPrivate lifts the
// rule on private ranges, not the one on what is no host.
func dialable(a netip.Addr, allowPrivate bool) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return false
	}
	if allowPrivate {
		return true
	}
	if ssrf.IPv6NAT64Prefix.Contains(a) {
		// RFC 6052 §2.2: the IPv4 address is in the last four octets.
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	return guard.SafeAddr(a) == nil
}
