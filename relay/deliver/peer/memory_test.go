package peer

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestRecent: what is remembered has an end and a bound.
func TestRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewRecent(time.Hour)
		a := nthAddress(0)
		if !m.Note(a) || m.Note(a) || !m.Has(a) {
			t.Error("not remembered, or news twice")
		}
		m.Forget(a)
		if m.Has(a) {
			t.Error("not forgotten")
		}
		for i := range 2 * maxRemembered {
			m.Note(nthAddress(i))
		}
		if n := m.known.Len(); n != maxRemembered || !m.Has(nthAddress(2*maxRemembered-1)) {
			t.Errorf("%d remembered", n)
		}
		time.Sleep(time.Hour)
		if last := nthAddress(2*maxRemembered - 1); m.Has(last) || !m.Note(last) {
			t.Error("remembered for ever")
		}
	})
}

// nthAddress is one address of many.
func nthAddress(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 25)
}
