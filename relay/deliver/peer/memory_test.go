package peer

import (
	"net/netip"
	"testing"
	"time"
)

// TestRecent: what is remembered has an end and a bound.
func TestRecent(t *testing.T) {
	m := NewRecent(time.Hour)
	a := nthAddress(0)
	if !m.Note(a) || m.Note(a) || !m.Has(a) {
		t.Error("not remembered, or news twice")
	}
	m.Forget(a)
	if m.Has(a) {
		t.Error("not forgotten")
	}
	for i := range maxRemembered {
		m.Note(nthAddress(i))
	}
	m.until[nthAddress(7)] = time.Now().Add(-time.Second)
	if m.Note(nthAddress(maxRemembered)); len(m.until) != maxRemembered || m.Has(nthAddress(7)) || !m.Has(nthAddress(8)) {
		t.Errorf("%d remembered", len(m.until))
	}
	if m.Note(nthAddress(maxRemembered + 1)); len(m.until) != 1 {
		t.Errorf("%d remembered", len(m.until))
	}
	m.until[nthAddress(8)] = time.Now().Add(-time.Second)
	if m.Has(nthAddress(8)) {
		t.Error("remembered for ever")
	}
}

// nthAddress is one address of many.
func nthAddress(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 25)
}
