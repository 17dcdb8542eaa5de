package limit

import (
	"sync"

	"tlsrelay/policy/account"
)

// Memory bounds the memory of what is being read: recipients, header sections, and
// bodies that are not on disk. An account may have as much as it leaves free: one
// account alone has half, the next half of the rest, and so on. So the next account
// always gets some, and no memory waits for an account that does not come. What a
// small message needs is not counted. All sizes are in octets.
type Memory struct {
	total int64

	mu   sync.Mutex
	used int64
	by   map[account.ID]int64
}

const (
	// freeShare is what a transaction has uncounted. Most need no more, and the
	// connection itself takes as much.
	freeShare = 16 << 10
	// shareStep is the unit in which shares grow.
	shareStep = 16 << 10
)

// NewMemory makes a Memory of total octets, none of them in use.
func NewMemory(total int64) *Memory {
	return &Memory{total: total, by: make(map[account.ID]int64)}
}

// take gives an account n octets more, or fewer if n is negative. It returns false
// if there are not enough.
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

// Exhausted reports whether an account has memory, and would get no more now.
func (m *Memory) Exhausted(who account.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	has := m.by[who]
	return has > 0 && has+shareStep > m.total-m.used-shareStep
}

// InUse is what all accounts have together.
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

// Share makes an empty share for one transaction of an account.
func (m *Memory) Share(who account.ID) Share { return Share{of: m, who: who} }

// Resize makes the share large enough for n octets. It makes the share smaller only
// if that saves half; 0 gives all back. It returns false, and changes nothing, if
// there is not enough memory.
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
