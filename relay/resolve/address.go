package resolve

import (
	"context"
	"net/netip"
	"sync"

	"github.com/miekg/dns"

	"tlsrelay/relay"
)

// place is where a host may be dialled.
type place struct {
	at      []netip.AddrPort
	own     bool           // one of its addresses is a listener of ours
	absent  bool           // DNS says for certain that it has no address
	failure *relay.Failure // why at is empty
}

// place looks a host's addresses up, and takes both families in turn.
func (c *composing) place(ctx context.Context, name string, port uint16, allowPrivate bool) (p place) {
	var v4, v6 answer
	var wg sync.WaitGroup
	wg.Go(func() { v4 = c.look(ctx, name, dns.TypeA) })
	wg.Go(func() { v6 = c.look(ctx, name, dns.TypeAAAA) })
	wg.Wait()
	private, unroutable := false, false
	for _, addr := range interleave(v6.addrs, v4.addrs) {
		at := netip.AddrPortFrom(addr, port)
		p.own = p.own || c.net.ours(at, c.o.Listening)
		switch {
		case !dialable(addr, allowPrivate):
			private = true
		case !c.net.reachable(addr):
			unroutable = true
		default:
			p.at = append(p.at, at)
		}
	}
	if len(p.at) == 0 {
		p.failure = whyNone(v4, v6, private, unroutable)
		p.absent = !v4.trouble() && !v6.trouble() && !private && !unroutable
	}
	return p
}

// whyNone says why a host has no usable address. One family in trouble may
// hide the address that the other has not.
func whyNone(v4, v6 answer, private, unroutable bool) *relay.Failure {
	switch {
	case v4.trouble():
		return dnsTrouble.host("address look-up: " + v4.detail)
	case v6.trouble():
		return dnsTrouble.host("address look-up: " + v6.detail)
	case private:
		return privateHost.host("private or loopback address")
	case unroutable:
		return noAddress.host("no address of a family that can be dialled from here")
	}
	return noAddress.host("no address")
}

// interleave takes from both lists in turn, so that one broken family costs
// one attempt and not all.
func interleave(a, b []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(a)+len(b))
	for i := range max(len(a), len(b)) {
		if i < len(a) {
			out = append(out, a[i])
		}
		if i < len(b) {
			out = append(out, b[i])
		}
	}
	return out
}
