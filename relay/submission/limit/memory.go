package limit

import (
	"sync"

	"tlsrelay/policy/account"
)

// Memory bounds the memory of what is being read: recipients, header sections, and
// bodies as far as they are not on disk. An account may have as much of it as it
// leaves free: one alone half, the next half of the rest, and so on. So there is room
// for whoever comes next, and none of it is set aside for nobody; and what a small
// message takes is not counted at all. All sizes are in octets.
type Memory struct {
	total int64

	mu   sync.Mutex
	used int64
	by   map[account.ID]int64
}

const (
	// freeShare is what a transaction may have uncounted: all that most need, and
	// no more than the connection itself takes.
	freeShare = 16 << 10
	// shareStep is the least that is asked for at a time.
	shareStep = 16 << 10
)

// NewMemory makes a Memory of total octets, none of them in use.
func NewMemory(total int64) *Memory {
	return &Memory{total: total, by: make(map[account.ID]int64)}
}

// take gives an account n octets more, or less where n is negative.
func (m *Memory) take(who account.ID, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > 0 && m.by[who]+n > m.total-m.used-n {
		return false
	}
	m.used += n
	if m.by[who] += n; m.by[who] <= 0 {
		delete(m.by, who)
	}
	return true
}

// Exhausted reports whether an account that has some could have nothing more now.
func (m *Memory) Exhausted(who account.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	has := m.by[who]
	return has > 0 && has+shareStep > m.total-m.used-shareStep
}

// InUse is how much all accounts have together.
func (m *Memory) InUse() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.used
}

// Share is what one transaction has of a Memory.
type Share struct {
	of  *Memory
	who account.ID
	has int64
}

// Share begins the share of one transaction of an account; it has nothing yet.
func (m *Memory) Share(who account.ID) Share { return Share{of: m, who: who} }

// Resize makes the share as large as n octets need, or, where that is far less, as
// small; 0 gives it back. false: there is no room, and it is as it was.
func (s *Share) Resize(n int64) bool {
	need := int64(0)
	if n > freeShare {
		need = (n - freeShare + shareStep - 1) / shareStep * shareStep
	}
	if need <= s.has && need > s.has/2 || need == s.has {
		return true
	}
	if !s.of.take(s.who, need-s.has) {
		return false
	}
	s.has = need
	return true
}
