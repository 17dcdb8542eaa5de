package store

import (
	"errors"
	"fmt"
	"strconv"

	"tlsrelay/relay/store/layout"
)

// errLayout is the error of a data directory that this program must not touch.
var errLayout = errors.New("store: the data directory is of another version of the program")

// checkLayout refuses a database of a layout that it does not know: read by the
// wrong rules it would look empty, and its mail lost. An empty database becomes
// ours.
func (s *Store) checkLayout(en *engine) error {
	v, found, err := en.get([]byte(layout.CounterLayout))
	if err != nil {
		return err
	}
	if found {
		switch string(v) {
		case strconv.Itoa(layout.Version):
			return nil
		case "2":
			return en.stamp(strconv.Itoa(layout.Version))
		}
		return fmt.Errorf("%w: layout %q, not %d", errLayout, v, layout.Version)
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
	return en.stamp(strconv.Itoa(layout.Version))
}

// stamp marks the data with the number of a layout.
func (en *engine) stamp(number string) error {
	b := en.db.NewBatch()
	return errors.Join(b.Set([]byte(layout.CounterLayout), []byte(number), nil), en.apply(b, true))
}
