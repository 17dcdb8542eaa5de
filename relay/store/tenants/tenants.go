package tenants

import (
	"sync"

	"tlsrelay/relay/store/layout"
)

// Reader reads records.
type Reader interface {
	// Get gives a copy of one value; found is false when there is none.
	Get(key []byte) (value []byte, found bool, err error)
	// Each calls visit with every key from lower to below upper, in order, and its
	// value, until it returns false. Both are good only during the call.
	Each(lower, upper []byte, visit func(key, value []byte) (bool, error)) error
}

// Batch takes changes of records that happen together or not at all.
type Batch interface {
	Set(key, value []byte) error
	Delete(key []byte) error
	DeleteRange(lower, upper []byte) error // from lower to below upper
}

// Engine is what the records of tenants need of a database: keys in order, and changes
// that are durable.
type Engine interface {
	// View lets visit read.
	View(visit func(Reader) error) error
	// Update makes what fill puts into a batch durable, all or nothing, and then calls
	// done, before the database can be opened anew and Load called.
	Update(fill func(Reader, Batch) error, done func()) error
}

// Tenants has the records of tenants. Its methods are safe for concurrent use.
type Tenants struct {
	db   Engine
	gone func(endpoint string)
	mem  memory

	writing  sync.Mutex       // serialises writers of accounts, keys, endpoints and overrides
	blocking [1024]sync.Mutex // of accounts, see LockBlocks
}

// New makes the room, which knows nothing before Load. gone is told of each endpoint
// that is removed, with the rows of the outbox that wait for it.
func New(db Engine, gone func(endpoint string)) *Tenants {
	return &Tenants{db: db, gone: gone}
}

// change makes durable what fill puts into a batch, and then runs apply with the memory
// locked. gone are the endpoints that are removed by that. The caller holds writing.
func (t *Tenants) change(fill func(b Batch) error, apply func(m *memory), gone ...string) error {
	return t.db.Update(func(_ Reader, b Batch) error { return fill(b) }, func() {
		t.mem.mu.Lock()
		apply(&t.mem)
		t.mem.mu.Unlock()
		for _, endpoint := range gone {
			t.gone(endpoint)
		}
	})
}

// put is change for one record.
func (t *Tenants) put(key []byte, v any, apply func(m *memory)) error {
	text, err := layout.Encode(v)
	if err != nil {
		return err
	}
	return t.change(func(b Batch) error { return b.Set(key, text) }, apply)
}
