package submission

import (
	"sync"

	"tlsrelay/policy/account"
)

// budget bounds the memory of what is being read: recipients, header sections, and
// bodies as far as they are not on disk. An account may have as much of it as it
// leaves free: one alone half, the next half of the rest, and so on. So there is room
// for whoever comes next, and none of it is set aside for nobody; and what a small
// message takes is not counted at all.
type budget struct {
	total int64

	mu   sync.Mutex
	used int64
	by   map[account.ID]int64
}

const (
	// memoryForContent is the whole budget.
	memoryForContent = 256 << 20
	// freeShare is what a transaction may have uncounted: all that most need, and
	// no more than the connection itself takes.
	freeShare = 16 << 10
	// shareStep is the least that is asked for at a time.
	shareStep = 16 << 10
)

func newBudget(total int64) *budget {
	return &budget{total: total, by: make(map[account.ID]int64)}
}

// take gives an account n octets more, or less where n is negative.
func (b *budget) take(who account.ID, n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && b.by[who]+n > b.total-b.used-n {
		return false
	}
	b.used += n
	if b.by[who] += n; b.by[who] <= 0 {
		delete(b.by, who)
	}
	return true
}

// exhausted reports whether an account that has some could have nothing more now.
func (b *budget) exhausted(who account.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	has := b.by[who]
	return has > 0 && has+shareStep > b.total-b.used-shareStep
}

func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// share is what one transaction has of the budget.
type share struct {
	of  *budget
	who account.ID
	has int64
}

// hold makes the share as large as n octets need, or, where that is far less, as
// small; false: there is no room, and it is as it was.
func (s *share) hold(n int64) bool {
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
