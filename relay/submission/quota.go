package submission

import (
	"sync"
	"time"

	"tlsrelay/policy/account"
)

// quota counts the recipients that an account has submitted mail for in the last
// hour, of accounts that may not have more than so many: a key that has leaked then
// does so much harm and no more. It is kept in memory, so a restart begins anew.
type quota struct {
	mu sync.Mutex
	by map[account.ID]*window
}

// window is an hour in minutes: the one that runs and the sixty before it, so that
// no sixty minutes have more than is allowed.
type window struct {
	minutes [61]int
	newest  int64 // the minute that runs
	sum     int
}

// at moves the window to now.
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

// take counts n more recipients of an account, if it may have them.
func (q *quota) take(who account.ID, n, limit int, now time.Time) bool {
	if limit <= 0 {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.by[who]
	if w == nil {
		q.sweep(now)
		w = &window{newest: now.Unix() / 60}
		q.by[who] = w
	}
	if w.at(now).sum+n > limit {
		return false
	}
	w.minutes[w.newest%int64(len(w.minutes))] += n
	w.sum += n
	return true
}

// give takes back what came to nothing.
func (q *quota) give(who account.ID, n int, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if w := q.by[who]; w != nil {
		back := min(n, w.at(now).minutes[w.newest%int64(len(w.minutes))])
		w.minutes[w.newest%int64(len(w.minutes))] -= back
		w.sum -= back
	}
}

// exhausted reports whether an account may have none at all now.
func (q *quota) exhausted(who account.ID, limit int, now time.Time) bool {
	if limit <= 0 {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.by[who]
	return w != nil && w.at(now).sum >= limit
}

// sweep forgets the accounts that have had none for an hour.
func (q *quota) sweep(now time.Time) {
	for who, w := range q.by {
		if w.at(now).sum == 0 {
			delete(q.by, who)
		}
	}
}
