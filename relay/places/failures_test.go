package places

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func TestFailures(t *testing.T) {
	f, now := NewFailures(2, time.Hour), time.Now()
	ip, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i, step := range []struct {
		after          time.Duration
		ip             netip.Addr
		first          bool
		slowed, begins bool
	}{
		{0, ip, true, false, false},
		{0, ip, false, false, false}, // the same connection
		{30 * time.Second, ip, true, false, false},
		{20 * time.Second, ip, true, true, true},
		{0, ip, false, true, false},
		{0, ip, true, true, false},
		{59 * time.Second, ip, true, true, false}, // for as long as it goes on
		{0, other, true, false, false},
		{59 * time.Second, ip, false, true, false},
		{time.Minute, ip, true, false, false}, // none came for a minute
		{0, ip, true, false, false},
		{0, ip, true, true, true},
	} {
		now = now.Add(step.after)
		if slowed, begins := f.Failed(step.ip, now, step.first); slowed != step.slowed || begins != step.begins {
			t.Errorf("step %d: slowed %v, begins %v", i, slowed, begins)
		}
	}
	f.sweep(now.Add(time.Hour))
	if len(f.seen) != 0 {
		t.Error("remembers for ever")
	}
}

// Whatever many sources do, Failures keeps little and makes few wait.
func TestFailuresAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, now := NewFailures(30, 3*time.Second), time.Now()
		at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
		for i := range maxSeen {
			if slowed, _ := f.Failed(at(i), now, true); slowed {
				t.Fatalf("source %d is slowed", i)
			}
		}
		if slowed, begins := f.Failed(at(maxSeen), now, true); !slowed || begins || len(f.seen) > maxSeen {
			t.Errorf("one source more: slowed %v, begins %v, %d known", slowed, begins, len(f.seen))
		}
		if slowed, _ := f.Failed(at(maxSeen), now.Add(time.Minute), true); slowed || len(f.seen) != 1 {
			t.Errorf("a minute later: slowed %v, %d known", slowed, len(f.seen))
		}
		for i := range 2 * maxSlow {
			go f.Hold(t.Context(), at(i))
		}
		synctest.Wait()
		if f.nSlow != maxSlow {
			t.Errorf("%d answers wait", f.nSlow)
		}
		begun := time.Now()
		f.Hold(t.Context(), at(0)) // there is no room
		if time.Since(begun) != 0 {
			t.Error("waited beyond the bound")
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if f.nSlow != 0 || len(f.slow) != 0 {
			t.Errorf("%d answers wait, of %d sources", f.nSlow, len(f.slow))
		}
		f.Close()
		f.Hold(t.Context(), at(0))
	})
}
