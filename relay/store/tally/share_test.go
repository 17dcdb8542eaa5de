package tally

import "testing"

func TestExtra(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct{ minFree, own, all, want int64 }{
		{256 * mb, 0, 1, 0},
		{256 * mb, 1000, 1000, 1000}, // it has all there is, which is little
		{256 * mb, 10_000 * mb, 10_000 * mb, 256 * mb},
		{256 * mb, 9_000 * mb, 10_000 * mb, 256 * mb * 9 / 10},
		{256 * mb, 100 * mb, 10_000 * mb, mb},
		{256 * mb, mb, 10_000 * mb, 104},
	} {
		if got := extra(c.minFree, c.own, c.all); got < c.want-1 || got > c.want+1 {
			t.Errorf("of %d it has %d: leaves %d, want %d", c.all, c.own, got, c.want)
		}
	}
}
