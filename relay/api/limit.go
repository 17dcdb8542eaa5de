package api

import (
	"sync"
	"time"
)

// limiter counts the requests of each key, or each account, in windows of one minute.
// A fixed window is what X-RateLimit-Reset describes: one moment after which the
// whole allowance is back. Only keys that exist get here, so the table is as small as
// the number of keys in use.
type limiter struct {
	perMinute int // 0: no limit

	mu     sync.Mutex
	minute int64 // since 1970
	used   map[string]int
}

// allowance is what a key or an account has left.
type allowance struct {
	limit, remaining int
	reset            int64 // Unix seconds
	exceeded         bool
}

// take counts one request.
func (l *limiter) take(who string, now time.Time) allowance {
	minute := now.Unix() / 60
	l.mu.Lock()
	defer l.mu.Unlock()
	if minute != l.minute || l.used == nil {
		l.minute, l.used = minute, make(map[string]int)
	}
	a := allowance{limit: l.perMinute, reset: (minute + 1) * 60}
	if l.used[who] >= l.perMinute {
		a.exceeded = true
		return a
	}
	l.used[who]++
	a.remaining = l.perMinute - l.used[who]
	return a
}
