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
const layout = 1

const counterLayout = pCounter + "layout"

// errLayout is the error of a data directory that this program must not touch.
var errLayout = errors.New("store: the data directory is of another version of the program")

// checkLayout refuses data whose layout is not ours: read with the wrong eyes
// it would look empty, and its mail lost. An empty database becomes ours.
func (en *engine) checkLayout() error {
	v, found, err := en.get([]byte(counterLayout))
	if err != nil {
		return err
	}
	if found {
		if string(v) != strconv.Itoa(layout) {
			return fmt.Errorf("%w: layout %q, not %d", errLayout, v, layout)
		}
		return nil
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
	return en.db.Set([]byte(counterLayout), strconv.AppendInt(nil, layout, 10), pebble.Sync)
}
