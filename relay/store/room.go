package store

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// freeFor is how long a measurement of the free space is good for: less than others
// need to fill a bound of any use.
const freeFor = 50 * time.Millisecond

// room is what the disk has free for new mail above min_free_disk. It is measured
// now and then; whoever is going to write takes his part beforehand, so that any
// number of messages that come at once take no more than there is. What is below
// min_free_disk is for what was promised: outcomes, their events and reports, the
// tables that logs become, and the work on these. They ask for no room.
type room struct {
	mu       sync.Mutex
	measured time.Time
	left     int64 // as measured, less what is being written and has been since
	taken    int64 // by writes under way
}

// reservation is room that somebody has taken, until it ends. The zero reservation
// is none.
type reservation struct {
	room   *room
	octets int64
}

// end gives the room back. What has been written into it the next measurement shows.
func (r *reservation) end() {
	if r.room == nil {
		return
	}
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	r.room.taken -= r.octets
	r.room = nil
}

// reserveFor takes room for so many octets of an account's mail. relay.ErrNoSpace:
// there is not as much; relay.ErrAccountFull: there is, for others.
func (s *Store) reserveFor(who account.ID, octets int64) (reservation, error) {
	en, err := s.enter()
	if err != nil {
		return s.reserveBy(octets, 0, freeFor)
	}
	defer s.leave()
	return s.reserveIn(en, who, octets)
}

// reserveIn is reserveFor for who has entered.
//
// The fuller the disk, the less it takes from those who fill it. An account leaves
// beside min_free_disk as much free again as its share of all waiting bodies comes
// to, and never more than it has there itself. So whoever has filled the disk meets
// the bound first, and the mail of others is taken meanwhile.
func (s *Store) reserveIn(en *engine, who account.ID, octets int64) (reservation, error) {
	if s.o.MinFreeDisk == 0 {
		return reservation{}, nil
	}
	own, all := en.tally.weight(who)
	r, err := s.reserveBy(octets, extra(int64(s.o.MinFreeDisk), own, all), freeFor)
	if errors.Is(err, errForOthers) {
		return r, en.tally.refuse(&s.bounds, who)
	}
	return r, err
}

// extra is what an account leaves free for others: it has own octets of all.
func extra(minFree, own, all int64) int64 {
	share := float64(own) / float64(all)
	return int64(share * float64(min(own, minFree)))
}

// errForOthers is the error of room that is left to others.
var errForOthers = errors.New("store: the room that is left is for others")

// reserveBy takes room of what there is beyond extra octets, by a measurement that is
// not as old as age.
func (s *Store) reserveBy(octets, extra int64, age time.Duration) (reservation, error) {
	if s.o.MinFreeDisk == 0 {
		return reservation{}, nil
	}
	r := &s.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.left-extra < octets || now.Sub(r.measured) >= age {
		known, err := r.measure(s, now)
		if err != nil || !known {
			return reservation{}, err
		}
	}
	if r.left < octets {
		return reservation{}, fmt.Errorf("%w: %d octets are wanted above min_free_disk, and %d are free there", relay.ErrNoSpace, octets, max(r.left, 0))
	}
	if r.left-extra < octets {
		return reservation{}, errForOthers
	}
	r.left -= octets
	r.taken += octets
	return reservation{r, octets}, nil
}

// measure asks the file system. What is being written may be there already, or in
// part, and counts as if it were not. known is false where nobody can tell.
func (r *room) measure(s *Store, now time.Time) (known bool, err error) {
	usage, err := s.fs.GetDiskUsage(s.o.Dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return false, nil
	}
	if err != nil {
		return false, unavailable(err)
	}
	r.measured, r.left = now, int64(usage.AvailBytes)-int64(s.o.MinFreeDisk)-r.taken
	return true, nil
}

// Room says whether a message would find room on the disk; relay.ErrNoSpace: it
// would not.
func (s *Store) Room() error {
	r, err := s.reserveBy(1, 0, 0)
	r.end()
	return err
}

// inFlight is how many octets are reserved at the moment.
func (r *room) inFlight() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.taken
}
