package store

import (
	"errors"
	"fmt"
	"strconv"
)

// layout is the number of the arrangement of keys and records in keys.go and
// records.go. Who changes what older data means gives it the next number, and
// tells here how the older one is brought over.
const layout = 3

// Layout 3 differs from layout 2 by rows of the outbox that an older program would
// send as they are (rows.go); the rows of layout 2 are read as ever.
//
// upgrading stands for layout while data of layout 1 is brought over: an older
// program, which would take no notice of what has been, refuses it.
const (
	counterLayout = pCounter + "layout"
	upgrading     = "1 to 2"
)

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
		case "2":
			return en.stamp(strconv.Itoa(layout))
		case "1", upgrading:
			s.log.Info("bringing the data over from layout 1; an older version of the program will not read it any more")
			return s.upgrade(en)
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
	return en.stamp(strconv.Itoa(layout))
}

// upgrade brings layout 1 over, and says so before and after.
func (s *Store) upgrade(en *engine) error {
	if err := en.stamp(upgrading); err != nil {
		return err
	}
	if err := s.fromLayout1(en); err != nil {
		return err
	}
	return en.stamp(strconv.Itoa(layout))
}

// stamp marks the data as of a layout.
func (en *engine) stamp(layout string) error {
	b := en.db.NewBatch()
	return errors.Join(b.Set([]byte(counterLayout), []byte(layout), nil), en.apply(b, true))
}
