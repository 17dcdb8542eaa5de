package main

import "testing"

func TestDescriptors(t *testing.T) {
	defaults := descriptors{10_000, 1000, maxHTTP}
	for _, c := range []struct {
		limit      int
		want, fits descriptors
	}{
		{0, defaults, defaults},
		{65536, defaults, defaults},
		{16_500, defaults, defaults},
		{16_499, defaults, descriptors{9999, 999, 1999}},
		{4096, defaults, descriptors{2048, 204, 409}},
		{1024, defaults, descriptors{512, 51, 102}},
		{100, defaults, descriptors{50, 5, 10}},
		{10, descriptors{1, 1, 1}, descriptors{1, 1, 1}},
		{1 << 20, descriptors{1 << 20, 1000, maxHTTP}, descriptors{1042106, 993, 1987}},
	} {
		got := c.want.within(c.limit)
		if got != c.fits {
			t.Errorf("%+v within %d: %+v, want %+v", c.want, c.limit, got, c.fits)
		}
		if all := got.submission + got.delivery + 2*got.http; c.limit > 10 && all > c.limit {
			t.Errorf("within %d: %d", c.limit, all)
		}
	}
}
