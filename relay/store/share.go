package store

import (
	"errors"

	"tlsrelay/policy/account"
	"tlsrelay/relay/store/engine"
)

// reserve takes room for so many octets of an account's mail. relay.ErrNoSpace: there
// is not as much; relay.ErrAccountFull: there is, for others.
//
// The fuller the disk, the less it takes from those who fill it. An account leaves
// beside min_free_disk as much free again as its share of all waiting bodies comes
// to, and never more than it has there itself. So whoever has filled the disk meets
// the bound first, and the mail of others is taken meanwhile.
func (s *Store) reserve(who account.ID, octets int64) (engine.Reservation, error) {
	if s.o.MinFreeDisk == 0 {
		return engine.Reservation{}, nil
	}
	own, all := s.tally.weight(who)
	r, err := s.engine.Reserve(octets, extra(int64(s.o.MinFreeDisk), own, all))
	if errors.Is(err, engine.ErrForOthers) {
		return r, s.tally.refuse(&s.bounds, who)
	}
	return r, err
}

// extra is what an account leaves free for others: it has own octets of all.
func extra(minFree, own, all int64) int64 {
	share := float64(own) / float64(all)
	return int64(share * float64(min(own, minFree)))
}
