package places

import (
	"strconv"
	"testing"
	"time"
)

// A line is due the first time, and a minute later with what has come meanwhile.
func TestSeldomCounts(t *testing.T) {
	var l Seldom
	start := time.Now()
	for _, c := range []struct {
		after time.Duration
		n     int
		due   bool
	}{{0, 1, true}, {time.Second, 1, false}, {2 * time.Second, 2, false}, {time.Minute, 3, true}, {61 * time.Second, 1, false}, {time.Hour, 2, true}} {
		if n, due := l.Due("cause", start.Add(c.after)); n != c.n || due != c.due {
			t.Errorf("after %v: %d, %t", c.after, n, due)
		}
	}
	if n, due := l.Due("another", start); n != 1 || !due {
		t.Errorf("another cause: %d, %t", n, due)
	}
}

// Whoever brings ever new causes makes it forget old ones, and not grow.
func TestSeldomIsBounded(t *testing.T) {
	var l Seldom
	now := time.Now()
	for i := range 10 * maxCauses {
		l.Due(strconv.Itoa(i), now.Add(time.Duration(i)*time.Microsecond))
	}
	if n := l.last.Len(); n > maxCauses {
		t.Errorf("%d causes are kept", n)
	}
}
