package limit

import (
	"fmt"
	"testing"

	"tlsrelay/policy/account"
)

// However many accounts want all they can have, one of them has as much as it leaves
// free, and there is room for the next.
func TestMemoryIsShared(t *testing.T) {
	const total = 1 << 30
	m := NewMemory(total)
	for n := range 20 {
		who := account.ID(fmt.Sprint(n))
		s := m.Share(who)
		for s.Resize(s.has + freeShare + shareStep) {
		}
		if want := int64(total) >> (n + 1); s.has < want-shareStep || s.has > want && s.has > 0 {
			t.Errorf("account %d has %d octets, want %d", n, s.has, want)
		}
		if full := m.Exhausted(who); full != (s.has > 0) {
			t.Errorf("account %d with %d octets is at its bound: %v", n, s.has, full)
		}
		if m.InUse() > total {
			t.Fatalf("%d octets are in use", m.InUse())
		}
	}
	one := Share{of: m, who: "0", has: m.by["0"]}
	if before := m.InUse(); !one.Resize(0) || m.InUse() != before-total/2 || len(m.by) != 15 {
		t.Errorf("%d octets are in use by %d accounts", m.InUse(), len(m.by))
	}
}

func TestShare(t *testing.T) {
	m := NewMemory(1 << 20)
	s := m.Share("1")
	for _, step := range []struct {
		want int64
		ok   bool
		has  int64
	}{
		{freeShare, true, 0},
		{freeShare + 1, true, shareStep},
		{100_000, true, 6 * shareStep},
		{90_000, true, 6 * shareStep},
		{600_000, false, 6 * shareStep},
		{50_000, true, 3 * shareStep},
		{10, true, 0},
	} {
		if ok := s.Resize(step.want); ok != step.ok || s.has != step.has || m.InUse() != s.has || m.by["1"] != s.has {
			t.Errorf("Resize(%d): %v, %d; in use %d", step.want, ok, s.has, m.InUse())
		}
	}
}
