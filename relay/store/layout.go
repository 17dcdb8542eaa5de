package store

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/cockroachdb/pebble/v2"
)

// layout is the number of the arrangement of keys and records in keys.go and
// records.go. Who changes what older data means gives it the next number, and
// tells here how the older one is brought over.
const layout = 2

const counterLayout = pCounter + "layout"

// errLayout is the error of a data directory that this program must not touch.
var errLayout = errors.New("store: the data directory is of another version of the program")

// checkLayout brings older data over and refuses what it does not know: read
// with the wrong eyes it would look empty, and its mail lost. An empty database
// becomes ours.
func (s *Store) checkLayout(en *engine) error {
	v, found, err := en.get([]byte(counterLayout))
	if err != nil {
		return err
	}
	if found {
		switch string(v) {
		case strconv.Itoa(layout):
			return nil
		case "1":
			s.log.Info("bringing the data over from layout 1; an older version of the program will not read it any more")
			return en.upgrade()
		}
		return fmt.Errorf("%w: layout %q, not %d", errLayout, v, layout)
	}
	empty := true
	if err := en.each(nil, nil, func(_, _ []byte) (bool, error) {
		empty = false
		return false, nil
	}); err != nil {
		return err
	}
	if !empty {
		return fmt.Errorf("%w: it names no layout", errLayout)
	}
	return en.stamp()
}

// upgrade brings layout 1 over, and then says so.
func (en *engine) upgrade() error {
	if err := en.fromLayout1(); err != nil {
		return err
	}
	return en.stamp()
}

// stamp marks the data as of our layout.
func (en *engine) stamp() error {
	return en.db.Set([]byte(counterLayout), strconv.AppendInt(nil, layout, 10), pebble.Sync)
}
