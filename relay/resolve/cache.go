package resolve

import (
	"sync"
	"sync/atomic"
	"time"
)

// cache keeps values until they expire, at most size of them. Reading takes
// no exclusive lock, for every message reads.
type cache[K comparable, V any] struct {
	size int

	mu sync.RWMutex
	m  map[K]*entry[V]
}

type entry[V any] struct {
	value   V
	expires time.Time
	used    atomic.Int64 // when last, in Unix nanoseconds
}

func newCache[K comparable, V any](size int) *cache[K, V] {
	return &cache[K, V]{size: size, m: map[K]*entry[V]{}}
}

func (c *cache[K, V]) get(k K, now time.Time) (v V, ok bool) {
	c.mu.RLock()
	e := c.m[k]
	c.mu.RUnlock()
	if e == nil || !now.Before(e.expires) {
		return v, false
	}
	e.used.Store(now.UnixNano())
	return e.value, true
}

func (c *cache[K, V]) put(k K, v V, now, expires time.Time) {
	e := &entry[V]{value: v, expires: expires}
	e.used.Store(now.UnixNano())
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.m[k]; !ok && len(c.m) >= c.size {
		c.evict(now)
	}
	c.m[k] = e
}

// evict makes room for one: the least recently used of a few that the map's
// random order brings up. That is near enough to LRU, and needs no list that
// every reader would have to lock.
func (c *cache[K, V]) evict(now time.Time) {
	var victim K
	oldest := int64(0)
	n := 0
	for k, e := range c.m {
		if !now.Before(e.expires) {
			victim = k
			break
		}
		if used := e.used.Load(); n == 0 || used < oldest {
			victim, oldest = k, used
		}
		if n++; n == 8 {
			break
		}
	}
	delete(c.m, victim)
}

// sweep forgets what has expired.
func (c *cache[K, V]) sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.m {
		if !now.Before(e.expires) {
			delete(c.m, k)
		}
	}
}

func (c *cache[K, V]) len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.m)
}
