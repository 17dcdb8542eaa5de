package store

import (
	"errors"
	"fmt"
	"strconv"
)

// layout is the number of the arrangement of keys and records in keys.go and
// records.go. Whoever changes what older data means gives it the next number, and
// says here how the older one is read.
//
// Layout 3 differs from layout 2 by rows of the outbox that an older program would
// send as they are (rows.go). The rows of layout 2 are read as ever.
const layout = 3

const counterLayout = pCounter + "layout"

// errLayout is the error of a data directory that this program must not touch.
var errLayout = errors.New("store: the data directory is of another version of the program")

// checkLayout refuses a database of a layout that it does not know: read by the
// wrong rules it would look empty, and its mail lost. An empty database becomes
// ours.
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

// stamp marks the data as of a layout.
func (en *engine) stamp(layout string) error {
	b := en.db.NewBatch()
	return errors.Join(b.Set([]byte(counterLayout), []byte(layout), nil), en.apply(b, true))
}
