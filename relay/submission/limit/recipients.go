package limit

import (
	"sync"
	"time"

	"tlsrelay/policy/account"
)

// Recipients counts the recipients of the last hour, for each account that has a
// limit on them. The limit bounds the harm that a leaked key can do. The counts are
// in memory, so a restart begins at zero. The zero value is ready to use.
type Recipients struct {
	mu sync.Mutex
	by map[account.ID]*window
}

// window counts by the minute: the minute that runs and the sixty before it, so that
// no hour has more than the limit.
type window struct {
	minutes [61]int
	newest  int64 // the minute that runs
	sum     int
}

// at moves w to now, and returns it.
func (w *window) at(now time.Time) *window {
	minute := now.Unix() / 60
	for passed := min(minute-w.newest, int64(len(w.minutes))); passed > 0; passed-- {
		w.newest = minute - passed + 1
		i := w.newest % int64(len(w.minutes))
		w.sum -= w.minutes[i]
		w.minutes[i] = 0
	}
	return w
}

// Take counts n more recipients of an account. It returns false, and counts nothing,
// if they are more than limit an hour. A limit of 0 is none.
func (r *Recipients) Take(who account.ID, n, limit int, now time.Time) bool {
	if limit <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.by[who]
	if w == nil {
		if r.by == nil {
			r.by = make(map[account.ID]*window)
		}
		r.sweep(now)
		w = &window{newest: now.Unix() / 60}
		r.by[who] = w
	}
	if w.at(now).sum+n > limit {
		return false
	}
	w.minutes[w.newest%int64(len(w.minutes))] += n
	w.sum += n
	return true
}

// GiveBack takes n recipients off the count, because their message was not accepted.
func (r *Recipients) GiveBack(who account.ID, n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.by[who]; w != nil {
		back := min(n, w.at(now).minutes[w.newest%int64(len(w.minutes))])
		w.minutes[w.newest%int64(len(w.minutes))] -= back
		w.sum -= back
	}
}

// Exhausted reports whether an account may have no recipient now.
func (r *Recipients) Exhausted(who account.ID, limit int, now time.Time) bool {
	if limit <= 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.by[who]
	return w != nil && w.at(now).sum >= limit
}

// sweep removes the accounts that had no recipient in the last hour.
func (r *Recipients) sweep(now time.Time) {
	for who, w := range r.by {
		if w.at(now).sum == 0 {
			delete(r.by, who)
		}
	}
}
