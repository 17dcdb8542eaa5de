package tally

import (
	"errors"

	"tlsrelay/policy/account"
	"tlsrelay/relay/store/engine"
)

// Reserve takes room for so many octets of an account's mail. relay.ErrNoSpace: there
// is not as much; relay.ErrAccountFull: there is, for others.
//
// The fuller the disk, the less it takes from those who fill it. An account leaves
// beside min_free_disk as much free again as its share of all waiting bodies comes
// to, and never more than it has there itself. So the account that has filled the disk meets
// the bound first, and the mail of others is taken meanwhile.
func (t *Tally) Reserve(e *engine.Engine, who account.ID, octets int64) (engine.Reservation, error) {
	if e.MinFree() == 0 {
		return engine.Reservation{}, nil
	}
	own, all := t.weight(who)
	r, err := e.Reserve(octets, extra(int64(e.MinFree()), own, all))
	if errors.Is(err, engine.ErrForOthers) {
		return r, t.refuse(who)
	}
	return r, err
}

// extra is what an account leaves free for others: it has own octets of all.
func extra(minFree, own, all int64) int64 {
	share := float64(own) / float64(all)
	return int64(share * float64(min(own, minFree)))
}

// weight gives what the waiting bodies of an account take, and those of all.
func (t *Tally) weight(who account.ID) (own, all int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.accounts[who]; l != nil {
		own = max(l.octets, 0)
	}
	return own, max(t.octets, own, 1)
}

// refuse says that the disk has no room for more of an account's mail, and some for
// others'.
func (t *Tally) refuse(who account.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refused.disk.Add(1)
	l := t.accounts[who]
	if l == nil {
		l = &load{}
	}
	return t.full(l, who)
}
