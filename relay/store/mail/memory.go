package mail

import (
	"slices"
	"sync"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/store/layout"
)

// memory is what this process knows of the queue beyond the database: the claims of its
// workers, and the writes whose fate a failed instance of the database leaves open.
type memory struct {
	mu sync.Mutex
	// leases are the deliveries that somebody is at work on, and until when at the
	// latest. They are lost in a restart, as their workers are.
	leases map[relay.DeliveryKey]time.Time
	// unsure are the deliveries whose last Commit failed and may have happened. Without
	// them, two equal steps of two hands (an operator's drop, say) would both be told
	// as having happened.
	unsure map[relay.DeliveryKey]struct{}
	// unsynced are the outcomes that were committed without waiting for stable storage,
	// until they have got there. When the instance fails in between they go down with
	// it, and the messages, which have been delivered, are queued again: with the next
	// instance they are replayed.
	unsynced []relay.Transition
	// unacknowledged are the keys of the writes of an Accept that failed: the log may
	// hold them all the same. They are taken out when the database is opened again. If
	// the process dies before, the client that was told 451 sends the message again, as
	// it does when a connection breaks before the 250 (RFC 1047).
	unacknowledged [][]byte
}

// maxUnsynced is more than a sync ever lets gather, and bounds the memory of a
// store that is not run.
const maxUnsynced = 1 << 14

func newMemory() memory {
	return memory{leases: make(map[relay.DeliveryKey]time.Time), unsure: make(map[relay.DeliveryKey]struct{})}
}

// claimed takes in claims that have been committed.
func (m *memory) claimed(entries []layout.IndexEntry) {
	if len(entries) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range entries {
		m.leases[e.Key] = e.Due
	}
}

// inHand reports whether somebody is at work on a delivery.
func (m *memory) inHand(k relay.DeliveryKey, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.leases[k]
	return ok && now.Before(until)
}

// lease reports whether the last claim of a delivery in this process is the one until
// then, and whether its last Commit is unsure.
func (m *memory) lease(k relay.DeliveryKey, until time.Time) (last, unsure bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	due, ok := m.leases[k]
	_, unsure = m.unsure[k]
	return ok && layout.TimeBits(due) == layout.TimeBits(until), unsure
}

// committed takes in a transition that has happened.
func (m *memory) committed(t relay.Transition, synced bool) {
	k := t.Before.Key
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unsure, k)
	if renews(t) {
		m.leases[k] = t.After.Due
	} else {
		delete(m.leases, k)
	}
	if !synced && t.Done && len(m.unsynced) < maxUnsynced {
		m.unsynced = append(m.unsynced, t)
	}
}

// failed takes in a transition whose Commit failed.
func (m *memory) failed(t relay.Transition) {
	if renews(t) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsure[t.Before.Key] = struct{}{}
}

// refused ends the lease of a transition that was refused, and reports whether the last
// Commit of its delivery is unsure.
func (m *memory) refused(t relay.Transition) (unsure bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[t.Before.Key].Equal(t.Before.Due) {
		delete(m.leases, t.Before.Key)
	}
	_, unsure = m.unsure[t.Before.Key]
	return unsure
}

// sure says that the fate of the last Commit of a delivery is known.
func (m *memory) sure(k relay.DeliveryKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unsure, k)
}

// outcomes gives the outcomes that are not synced. The first so many can be dropped after
// a sync that begins now. They are good until the next call of synced.
func (m *memory) outcomes() []relay.Transition {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.unsynced[:len(m.unsynced):len(m.unsynced)]
}

// synced drops the first n outcomes, which are on stable storage.
func (m *memory) synced(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsynced = slices.Delete(m.unsynced, 0, n)
}

// unacknowledge notes keys that a failed Accept may have written.
func (m *memory) unacknowledge(keys [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unacknowledged = append(m.unacknowledged, keys...)
}
