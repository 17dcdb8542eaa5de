package cache

import (
	"testing"
	"time"
)

func TestCacheIsBounded(t *testing.T) {
	const trials = 100 // one alone is luck: 98 are young on average, but once in thousands only 86
	young := 0
	for range trials {
		now := time.Now()
		c := New[int, int](100)
		for i := range 1000 {
			now = now.Add(time.Millisecond)
			c.Put(i, i, now, now.Add(time.Hour))
			if _, ok := c.Get(0, now); !ok && i < 100 {
				t.Fatalf("lost an entry at %d, before the cache was full", i)
			}
		}
		if c.Len() != 100 {
			t.Errorf("%d entries", c.Len())
		}
		for i := 800; i < 1000; i++ {
			if _, ok := c.Get(i, now); ok {
				young++
			}
		}
	}
	// Random eviction would keep about 87 of the newest 200 among its 100.
	if young < 95*trials {
		t.Errorf("only %d of the %d entries kept are young", young, 100*trials)
	}
}

// Put tells whether the key had a value, and Delete takes it away.
func TestCacheTellsNews(t *testing.T) {
	now := time.Now()
	c := New[string, int](10)
	for i, want := range []bool{true, false} {
		if got := c.Put("a", i, now, now.Add(time.Second)); got != want {
			t.Errorf("Put %d: %t", i, got)
		}
	}
	if !c.Put("a", 2, now.Add(time.Second), now.Add(time.Minute)) {
		t.Error("an expired value is one")
	}
	c.Delete("a")
	if _, ok := c.Get("a", now); ok || !c.Put("a", 3, now, now.Add(time.Second)) {
		t.Error("not deleted")
	}
}

func TestCacheForgets(t *testing.T) {
	now := time.Now()
	c := New[string, int](10)
	c.Put("a", 1, now, now.Add(time.Second))
	c.Put("b", 2, now, now.Add(time.Minute))
	if _, ok := c.Get("a", now.Add(time.Second)); ok {
		t.Error("found at its expiry")
	}
	if c.Sweep(now.Add(time.Second)); c.Len() != 1 {
		t.Errorf("%d entries after sweeping", c.Len())
	}
}
