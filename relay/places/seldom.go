package places

import (
	"maps"
	"sync"
	"time"
)

// Seldom tells when something that strangers can have happen as often as they like
// is to be logged: the first time, and then once a minute, with how often it has
// happened since the last. The zero Seldom is ready.
type Seldom struct {
	mu   sync.Mutex
	last map[string]told
}

// maxCauses is when those are forgotten that a line is due for anyway. Accounts may
// be among them, so that they are no closed set, and strangers are not.
const maxCauses = 1000

type told struct {
	n  int // since the last line
	at time.Time
}

// Due counts one case of a cause, and says whether its line is due and for how many.
func (l *Seldom) Due(cause string, now time.Time) (n int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = make(map[string]told)
	}
	if len(l.last) >= maxCauses {
		maps.DeleteFunc(l.last, func(_ string, t told) bool { return now.Sub(t.at) >= time.Minute })
	}
	t := l.last[cause]
	t.n++
	n, due = t.n, t.at.IsZero() || now.Sub(t.at) >= time.Minute
	if due {
		t = told{at: now}
	}
	l.last[cause] = t
	return n, due
}
