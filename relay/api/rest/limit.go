package rest

import (
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Limiter counts the requests of each key, or each account, in windows of one minute.
// A fixed window is what X-RateLimit-Reset describes: one moment after which the
// whole allowance is back. Only keys that exist get here, so the table is as small as
// the number of keys in use.
type Limiter struct {
	PerMinute int // 0: no limit

	mu     sync.Mutex
	minute int64 // since 1970
	used   map[string]int
}

// Allowance is what a key or an account has left.
type Allowance struct {
	Limit, Remaining int
	Reset            int64 // Unix seconds
	Exceeded         bool
}

// Tell writes the headers by which clients wait.
func (a Allowance) Tell(h http.Header, now time.Time) {
	h.Set("X-RateLimit-Limit", strconv.Itoa(a.Limit))
	h.Set("X-RateLimit-Remaining", strconv.Itoa(a.Remaining))
	h.Set("X-RateLimit-Reset", strconv.FormatInt(a.Reset, 10))
	if a.Exceeded {
		h.Set("Retry-After", strconv.FormatInt(a.Reset-now.Unix(), 10))
	}
}

// Take counts one request.
func (l *Limiter) Take(who string, now time.Time) Allowance {
	minute := now.Unix() / 60
	l.mu.Lock()
	defer l.mu.Unlock()
	if minute != l.minute || l.used == nil {
		l.minute, l.used = minute, make(map[string]int)
	}
	a := Allowance{Limit: l.PerMinute, Reset: (minute + 1) * 60}
	if l.used[who] >= l.PerMinute {
		a.Exceeded = true
		return a
	}
	l.used[who]++
	a.Remaining = l.PerMinute - l.used[who]
	return a
}
