package deliver

import (
	"net/netip"
	"testing"
	"time"
)

// TestAddressMemory: what is remembered has an end and a bound.
func TestAddressMemory(t *testing.T) {
	m := newAddressMemory(time.Hour)
	a := nthAddress(0)
	if !m.note(a) || m.note(a) || !m.has(a) {
		t.Error("not remembered, or news twice")
	}
	m.forget(a)
	if m.has(a) {
		t.Error("not forgotten")
	}
	for i := range maxRemembered {
		m.note(nthAddress(i))
	}
	m.until[nthAddress(7)] = time.Now().Add(-time.Second)
	if m.note(nthAddress(maxRemembered)); len(m.until) != maxRemembered || m.has(nthAddress(7)) || !m.has(nthAddress(8)) {
		t.Errorf("%d remembered", len(m.until))
	}
	if m.note(nthAddress(maxRemembered + 1)); len(m.until) != 1 {
		t.Errorf("%d remembered", len(m.until))
	}
	m.until[nthAddress(8)] = time.Now().Add(-time.Second)
	if m.has(nthAddress(8)) {
		t.Error("remembered for ever")
	}
}

// nthAddress is one address of many.
func nthAddress(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 25)
}
