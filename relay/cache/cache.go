// Package cache is the bounded memory of what strangers make the relay remember:
// answers of DNS (relay/resolve), what receiving hosts have shown (relay/deliver/peer),
// causes of log lines (relay/places). A full cache makes room for what is new.
package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

// Cache keeps values until they expire, at most size of them. It is safe for
// concurrent use. Get takes no exclusive lock, because every message reads.
type Cache[K comparable, V any] struct {
	size int

	mu sync.RWMutex
	m  map[K]*entry[V]
}

type entry[V any] struct {
	value   V
	expires time.Time
	used    atomic.Int64 // when last, in Unix nanoseconds
}

// New makes a cache of at most size values.
func New[K comparable, V any](size int) *Cache[K, V] {
	return &Cache[K, V]{size: size, m: map[K]*entry[V]{}}
}

// Get gives the value of a key, unless it has expired.
func (c *Cache[K, V]) Get(k K, now time.Time) (v V, ok bool) {
	c.mu.RLock()
	e := c.m[k]
	c.mu.RUnlock()
	if e == nil || !now.Before(e.expires) {
		return v, false
	}
	e.used.Store(now.UnixNano())
	return e.value, true
}

// Put keeps a value until it expires, or until the cache needs the room, and reports
// whether the key had none.
func (c *Cache[K, V]) Put(k K, v V, now, expires time.Time) (news bool) {
	e := &entry[V]{value: v, expires: expires}
	e.used.Store(now.UnixNano())
	c.mu.Lock()
	defer c.mu.Unlock()
	old, ok := c.m[k]
	if !ok && len(c.m) >= c.size {
		c.evict(now)
	}
	c.m[k] = e
	return !ok || !now.Before(old.expires)
}

// Delete forgets the value of a key.
func (c *Cache[K, V]) Delete(k K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.m, k)
}

// evict makes room for one value. Of a few that the random order of the map brings
// up, an expired one goes, or the least recently used. That is near enough to LRU
// and needs no list, which every reader would have to lock.
func (c *Cache[K, V]) evict(now time.Time) {
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

// Sweep forgets what has expired.
func (c *Cache[K, V]) Sweep(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, e := range c.m {
		if !now.Before(e.expires) {
			delete(c.m, k)
		}
	}
}

// Len counts the values, those included that have expired and were not swept.
func (c *Cache[K, V]) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.m)
}
