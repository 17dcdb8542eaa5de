package queue

import (
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/queue/fair"
)

// lessons are what is known of destination queues that are not in memory because
// nothing of them is due: each account remembers those it has used. Two
// generations bound their number and their age.
type lessons struct {
	young, old map[relay.Lane]lesson
	since      time.Time // of the young ones
}

// lesson is what was learned of one destination queue.
type lesson struct {
	window fair.Window
	last   *relay.Failure
}

// maxLessons bounds one generation.
const maxLessons = 4096

func (m *lessons) put(key relay.Lane, x lesson, now time.Time) {
	if len(m.young) >= maxLessons {
		m.age(now)
	}
	if m.young == nil {
		m.young, m.since = make(map[relay.Lane]lesson), now
	}
	m.young[key] = x
}

// take gives what is known of a destination queue, which is in memory from now on.
func (m *lessons) take(key relay.Lane) (lesson, bool) {
	x, ok := m.young[key]
	if !ok {
		x, ok = m.old[key]
	}
	delete(m.young, key)
	delete(m.old, key)
	return x, ok
}

// expire forgets what is too old.
func (m *lessons) expire(now time.Time) {
	if now.Sub(m.since) >= keepIdle {
		m.age(now)
	}
}

// age makes the young generation the old one, which is forgotten.
func (m *lessons) age(now time.Time) { m.young, m.old, m.since = nil, m.young, now }

func (m *lessons) empty() bool { return len(m.young)+len(m.old) == 0 }
