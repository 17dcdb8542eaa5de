package engine

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/relay"
)

// freeFor is how long a measurement of the free space is good for: less than others
// need to fill a bound of any use.
const freeFor = 50 * time.Millisecond

// room is what the disk has free for new mail above min_free_disk. It is measured now
// and then. Each writer reserves its part before it writes, so that any number of
// messages at once take no more than there is. What is below min_free_disk is for what
// was promised: outcomes, their events and reports, the tables that logs become, and
// compactions. They ask for no room.
type room struct {
	mu       sync.Mutex
	measured time.Time
	left     int64 // as measured, less what is being written and has been since
	taken    int64 // by writes under way
}

// Reservation is room that somebody has taken, until it ends. The zero Reservation
// is none.
type Reservation struct {
	room   *room
	octets int64
}

// End gives the room back. What has been written into it the next measurement shows.
func (r *Reservation) End() {
	if r.room == nil {
		return
	}
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	r.room.taken -= r.octets
	r.room = nil
}

// ErrForOthers is the error of room that is left to others.
var ErrForOthers = errors.New("store: the room that is left is for others")

// Reserve takes room for so many octets of what there is beyond extra octets.
// relay.ErrNoSpace: there is not as much; ErrForOthers: there is, but not beyond extra.
func (e *Engine) Reserve(octets, extra int64) (Reservation, error) {
	return e.reserveBy(octets, extra, freeFor)
}

// reserveBy is Reserve by a measurement that is not as old as age.
func (e *Engine) reserveBy(octets, extra int64, age time.Duration) (Reservation, error) {
	if e.o.MinFreeDisk == 0 {
		return Reservation{}, nil
	}
	r := &e.room
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); r.left-extra < octets || now.Sub(r.measured) >= age {
		known, err := r.measure(e, now)
		if err != nil || !known {
			return Reservation{}, err
		}
	}
	if r.left < octets {
		return Reservation{}, fmt.Errorf("%w: %d octets are wanted above min_free_disk, and %d are free there", relay.ErrNoSpace, octets, max(r.left, 0))
	}
	if r.left-extra < octets {
		return Reservation{}, ErrForOthers
	}
	r.left -= octets
	r.taken += octets
	return Reservation{r, octets}, nil
}

// measure asks the file system. What is being written may be there already, or in
// part, and counts as if it were not. known is false where nobody can tell.
func (r *room) measure(e *Engine, now time.Time) (known bool, err error) {
	usage, err := e.fs.GetDiskUsage(e.o.Dir)
	if errors.Is(err, vfs.ErrUnsupported) {
		return false, nil
	}
	if err != nil {
		return false, Unavailable(err)
	}
	r.measured, r.left = now, int64(usage.AvailBytes)-int64(e.o.MinFreeDisk)-r.taken
	return true, nil
}

// Room says whether a message would find room on the disk; relay.ErrNoSpace: it
// would not.
func (e *Engine) Room() error {
	r, err := e.reserveBy(1, 0, 0)
	r.End()
	return err
}

// Reserved is how many octets are reserved at the moment.
func (e *Engine) Reserved() int64 {
	e.room.mu.Lock()
	defer e.room.mu.Unlock()
	return e.room.taken
}

// Free is how many octets are free on the disk.
func (e *Engine) Free() (uint64, error) {
	usage, err := e.fs.GetDiskUsage(e.o.Dir)
	return usage.AvailBytes, err
}

// MinFree is how many octets must stay free for mail to be accepted; 0: no bound.
func (e *Engine) MinFree() uint64 { return e.o.MinFreeDisk }
