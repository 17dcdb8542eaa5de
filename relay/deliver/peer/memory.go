package peer

import (
	"net/netip"
	"sync"
	"time"
)

// Recent remembers addresses for a while each. Their number has
// a bound, because the owner of a domain chooses its addresses. Its methods are safe for
// concurrent use.
type Recent struct {
	keep time.Duration

	mu    sync.Mutex
	until map[netip.AddrPort]time.Time
}

// maxRemembered bounds a Recent. A full one forgets all, and each address costs a
// connection until it is known again.
const maxRemembered = 10000

// NewRecent makes one that remembers each address for so long.
func NewRecent(keep time.Duration) *Recent {
	return &Recent{keep: keep, until: make(map[netip.AddrPort]time.Time)}
}

// Has reports whether an address is remembered.
func (m *Recent) Has(a netip.AddrPort) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.until[a]
	if ok && time.Now().After(until) {
		delete(m.until, a)
		return false
	}
	return ok
}

// Note remembers an address from now on, and reports whether it was not remembered
// before.
func (m *Recent) Note(a netip.AddrPort) (news bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	until, ok := m.until[a]
	if !ok && len(m.until) >= maxRemembered {
		m.sweep(now)
	}
	m.until[a] = now.Add(m.keep)
	return !ok || now.After(until)
}

// sweep makes room.
func (m *Recent) sweep(now time.Time) {
	for a, until := range m.until {
		if now.After(until) {
			delete(m.until, a)
		}
	}
	if len(m.until) >= maxRemembered {
		clear(m.until)
	}
}

// Forget drops what is remembered of an address.
func (m *Recent) Forget(a netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.until, a)
}
