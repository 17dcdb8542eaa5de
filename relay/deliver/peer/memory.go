package peer

import (
	"net/netip"
	"time"

	"tlsrelay/relay/cache"
)

// Recent remembers addresses for a while each. Their number has
// a bound, because the owner of a domain chooses its addresses. Its methods are safe for
// concurrent use.
type Recent struct {
	keep  time.Duration
	known *cache.Cache[netip.AddrPort, struct{}]
}

// maxRemembered bounds a Recent. An address that is forgotten costs a connection until it
// is known again.
const maxRemembered = 10000

// NewRecent makes one that remembers each address for so long.
func NewRecent(keep time.Duration) *Recent {
	return &Recent{keep, cache.New[netip.AddrPort, struct{}](maxRemembered)}
}

// Has reports whether an address is remembered.
func (m *Recent) Has(a netip.AddrPort) bool {
	_, ok := m.known.Get(a, time.Now())
	return ok
}

// Note remembers an address from now on, and reports whether it was not remembered
// before.
func (m *Recent) Note(a netip.AddrPort) (news bool) {
	now := time.Now()
	return m.known.Put(a, struct{}{}, now, now.Add(m.keep))
}

// Forget drops what is remembered of an address.
func (m *Recent) Forget(a netip.AddrPort) { m.known.Delete(a) }
