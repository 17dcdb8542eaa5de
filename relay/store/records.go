package store

import (
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/tenants"
)

// records gives the engine to the room of the tenants.
type records struct{ engine *engine.Engine }

// View implements tenants.Engine.
func (r records) View(visit func(tenants.Reader) error) error {
	db, err := r.engine.Enter()
	if err != nil {
		return err
	}
	defer r.engine.Leave()
	return visit(db)
}

// Update implements tenants.Engine.
func (r records) Update(fill func(tenants.Reader, tenants.Batch) error, done func()) error {
	db, err := r.engine.Enter()
	if err != nil {
		return err
	}
	defer r.engine.Leave()
	b := db.NewBatch()
	if err := fill(db, batch{b}); err != nil {
		return errors.Join(err, b.Close())
	}
	if err := db.Apply(b, true); err != nil {
		return err
	}
	done()
	return nil
}

// batch is a batch of the engine without pebble's options.
type batch struct{ of *pebble.Batch }

func (b batch) Set(key, value []byte) error           { return b.of.Set(key, value, nil) }
func (b batch) Delete(key []byte) error               { return b.of.Delete(key, nil) }
func (b batch) DeleteRange(lower, upper []byte) error { return b.of.DeleteRange(lower, upper, nil) }
