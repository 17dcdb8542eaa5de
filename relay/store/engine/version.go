package engine

import (
	"errors"
	"fmt"
	"strconv"

	"tlsrelay/relay/store/layout"
)

// ErrLayout is the error of a data directory that this program must not touch.
var ErrLayout = errors.New("store: the data directory is of another version of the program")

// checkVersion refuses a database of a layout that it does not know: read by the
// wrong rules it would look empty, and its mail lost. An empty database becomes
// ours.
func (db *DB) checkVersion() error {
	v, found, err := db.Get([]byte(layout.CounterLayout))
	if err != nil {
		return err
	}
	if found {
		switch string(v) {
		case strconv.Itoa(layout.Version):
			return nil
		case "2":
			return db.stamp(strconv.Itoa(layout.Version))
		}
		return fmt.Errorf("%w: layout %q, not %d", ErrLayout, v, layout.Version)
	}
	empty := true
	if err := db.Each(nil, nil, func(_, _ []byte) (bool, error) {
		empty = false
		return false, nil
	}); err != nil {
		return err
	}
	if !empty {
		return fmt.Errorf("%w: it names no layout", ErrLayout)
	}
	return db.stamp(strconv.Itoa(layout.Version))
}

// stamp marks the data with the number of a layout.
func (db *DB) stamp(number string) error {
	b := db.db.NewBatch()
	return errors.Join(b.Set([]byte(layout.CounterLayout), []byte(number), nil), db.Apply(b, true))
}
