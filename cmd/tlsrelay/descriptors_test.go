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
		{27_500, defaults, defaults},
		{27_499, defaults, descriptors{9999, 1000, 2000}},
		{4096, defaults, descriptors{512, 512, 512}},
		{1024, defaults, descriptors{128, 128, 128}},
		{100, defaults, descriptors{13, 12, 12}},
		{20_000, descriptors{10_000, 100, maxHTTP}, descriptors{7150, 100, maxHTTP}}, // a bound that was chosen holds
		{10, descriptors{1, 1, 1}, descriptors{1, 1, 1}},
		{1 << 20, descriptors{1 << 20, 1000, maxHTTP}, descriptors{520538, 1000, maxHTTP}},
	} {
		got := c.want.within(c.limit)
		if got != c.fits {
			t.Errorf("%+v within %d: %+v, want %+v", c.want, c.limit, got, c.fits)
		}
		if all := got.files(); c.limit > 10 && got != c.want && all > c.limit {
			t.Errorf("within %d: %d", c.limit, all)
		}
	}
}
