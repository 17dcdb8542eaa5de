package store

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/bodies"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/mail"
	"tlsrelay/relay/store/outbox"
	"tlsrelay/relay/store/tally"
	"tlsrelay/relay/store/tenants"
)

var (
	_ relay.Store           = (*Store)(nil)
	_ relay.Operator        = (*Store)(nil)
	_ account.Store         = (*Store)(nil)
	_ account.OverrideStore = (*Store)(nil)
	_ webhook.Outbox        = (*Store)(nil)
	_ webhook.Store         = (*Store)(nil)
	_ events.BlockStore     = (*Store)(nil)
)

// Options are the settings of a [Store]; only Dir must be set.
type Options struct {
	// Dir is the data directory; the store makes "db" and "spool" in it.
	Dir string
	// FS is the file system, for tests; nil: the machine's.
	FS vfs.FS
	// MinFreeDisk is how many octets must stay free on the disk for a message
	// to be accepted: room to finish what has been promised. 0: no bound.
	MinFreeDisk uint64
	// MaxWaiting and MaxDestinations are how many recipients an account may have
	// waiting, and for how many destinations; 0: no bound.
	MaxWaiting, MaxDestinations int
	// MaxEvents is how many octets of events an account may have waiting, all its
	// endpoints together, before its oldest are given up; default 512 MiB.
	MaxEvents int64
	// Retention is how long evidence is kept, from the acceptance of its
	// message on; default 720 h.
	Retention time.Duration
	// MemTable and Cache are the database's write buffer (up to four of them
	// while the disk is slow) and its read cache, in octets; default 16 MiB
	// each.
	MemTable, Cache int64

	Log        *zap.Logger           // nil: none
	Registerer prometheus.Registerer // nil: no metrics
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	o.Retention = cmp.Or(o.Retention, 720*time.Hour)
	o.MemTable = cmp.Or(o.MemTable, 16<<20)
	o.Cache = cmp.Or(o.Cache, 16<<20)
	return o
}

// mailCalls are what the room of the queue answers.
type mailCalls interface {
	relay.Store
	relay.Operator
	Admit(who account.ID) error
	Sweep(ctx context.Context, now time.Time) error
}

// tenantCalls are what the room of the tenants answers.
type tenantCalls interface {
	account.Store
	account.OverrideStore
	webhook.Store
	events.BlockStore
	Endpoint(ctx context.Context, id string) (e webhook.Endpoint, ok bool, err error)
}

// outboxCalls are what the room of the outbox answers.
type outboxCalls interface {
	Pending(ctx context.Context) ([]string, error)
	Rows(ctx context.Context, endpoint string, s webhook.Span, maxBytes int) ([]webhook.Row, error)
	Remove(ctx context.Context, endpoint string, s webhook.Span) error
	Wake(f func(endpoint string))
	Shed(f func(account string, events int, oldest time.Time))
}

// Store is the embedded store. Its methods are safe for concurrent use. Once
// [Store.Close] was called they return relay.ErrUnavailable.
type Store struct {
	mailCalls
	tenantCalls
	outboxCalls

	o         Options
	engine    *engine.Engine
	bodies    *bodies.Bodies
	tally     *tally.Tally
	tenants   *tenants.Tenants
	outbox    *outbox.Outbox
	mail      *mail.Store
	collector *collector // nil without metrics
}

// Open opens the store in o.Dir, and makes it where there is none. It starts
// nothing but pebble's own goroutines; call [Store.Run]. It is an error when
// another process has the directory open.
func Open(o Options) (*Store, error) {
	o = o.withDefaults()
	s := &Store{
		o: o,
		engine: engine.New(engine.Options{
			Dir: o.Dir, FS: o.FS, MinFreeDisk: o.MinFreeDisk, MemTable: o.MemTable, Cache: o.Cache, Log: o.Log,
		}),
		tally: tally.New(tally.Bounds{Recipients: o.MaxWaiting, Destinations: o.MaxDestinations}, o.Log),
	}
	s.tenants = tenants.New(records{s.engine}, func(endpoint string) { s.outbox.Forget(endpoint) })
	s.outbox = outbox.New(s.engine, s.tenants, o.MaxEvents, o.Log)
	s.bodies = bodies.New(o.FS, o.FS.PathJoin(o.Dir, "spool"), func(who account.ID, octets int64) (engine.Reservation, error) {
		return s.tally.Reserve(s.engine, who, octets)
	}, o.Log)
	s.mail = mail.New(mail.Options{
		Engine: s.engine, Bodies: s.bodies, Tally: s.tally, Tenants: s.tenants, Outbox: s.outbox,
		Retention: o.Retention, Log: o.Log,
	})
	s.mailCalls, s.tenantCalls, s.outboxCalls = s.mail, s.tenants, s.outbox
	err := s.engine.Open(engine.Hooks{Recover: s.recoverFrom, Replay: s.mail.Replay, Count: s.count})
	if err == nil {
		err = s.bodies.SweepDrafts()
	}
	if err == nil {
		err = s.register(o.Registerer)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// recoverFrom puts the database right after whatever came before, and loads
// what is kept in memory.
func (s *Store) recoverFrom(db *engine.DB) error {
	s.tally.Reset(db.Splits())
	if err := s.mail.Recover(db); err != nil {
		return err
	}
	if err := s.outbox.Recover(db); err != nil {
		return err
	}
	if err := s.tenants.Load(db); err != nil {
		return err
	}
	return s.bodies.Recover(db)
}

// count adds what was there when the instance was opened to what is counted in memory.
func (s *Store) count(ctx context.Context, db *engine.DB, at pebble.Reader) error {
	err := s.tally.Count(ctx, db, at)
	if err == nil {
		err = s.outbox.Count(ctx, db, at)
	}
	return err
}

// Run syncs what was written without waiting, reopens the database after a
// failure of the disk, and ends evidence past its retention, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { s.mail.Run(ctx) })
	wg.Go(func() { s.outbox.Run(ctx) })
	s.engine.Run(ctx)
	return nil
}

// Close ends the store. What Run has not synced yet is synced.
func (s *Store) Close() error {
	// First: to unregister, the collector is asked what it collects, and that
	// enters the store.
	s.unregister(s.o.Registerer)
	return s.engine.Close()
}

// Ready says whether the store can read and write; nil: it can.
func (s *Store) Ready() error { return s.engine.Ready() }

// Room says whether a message would find room on the disk; relay.ErrNoSpace: it
// would not.
func (s *Store) Room() error { return s.engine.Room() }
