package places

import (
	"sync"
	"time"

	"tlsrelay/relay/cache"
)

// Seldom tells when something that strangers can have happen as often as they like
// is to be logged: the first time, and then once a minute, with how often it has
// happened since the last line. The zero Seldom is ready.
type Seldom struct {
	mu   sync.Mutex
	last *cache.Cache[string, told]
}

const (
	// maxCauses bounds the memory: accounts may be among the causes, so they are no
	// closed set.
	maxCauses = 1000
	// keepCause is how long a cause is remembered that does not happen any more.
	keepCause = 24 * time.Hour
)

type told struct {
	n  int // since the last line
	at time.Time
}

// Due counts one case of a cause, and says whether its line is due and for how many.
func (l *Seldom) Due(cause string, now time.Time) (n int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last == nil {
		l.last = cache.New[string, told](maxCauses)
	}
	t, known := l.last.Get(cause, now)
	t.n++
	n, due = t.n, !known || now.Sub(t.at) >= time.Minute
	if due {
		t = told{at: now}
	}
	l.last.Put(cause, t, now, now.Add(keepCause))
	return n, due
}
