package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// inlineLimit is the largest body that goes into the database. Larger ones
// would cost memory in multiples of their size there.
const inlineLimit = 256 << 10

// copyBuffer is through which a large body is copied to its file.
const copyBuffer = 32 << 10

// checkEvery is how much of a large body is written between two looks at the
// free space.
const checkEvery = 1 << 20

// unnamed ends the name of a spool file that no message has claimed yet.
const unnamed = ".tmp"

// errDraft is the error of a draft that has ended, or is another store's.
var errDraft = errors.New("store: not an open draft of this store")

// draft is a body on its way in.
type draft struct {
	s     *Store
	who   account.ID
	buf   []byte   // the body, until it is too large
	file  vfs.File // then the spool file
	name  string
	size  int64
	err   error
	ended bool
	ours  bool               // of a report, which is part of what was promised: it asks for no room
	room  engine.Reservation // on the disk, for what is written next
}

// drafts gives spool files names that are unique in this process and reuses
// buffers.
type drafts struct {
	mu   sync.Mutex
	next int
	pool sync.Pool // of *[]byte
}

// NewDraft begins a body of an account's message.
func (s *Store) NewDraft(who account.ID) relay.Draft { return s.newDraft(who) }

func (s *Store) newDraft(who account.ID) *draft {
	d := &draft{s: s, who: who}
	if b, ok := s.drafts.pool.Get().(*[]byte); ok {
		d.buf = (*b)[:0]
	}
	return d
}

// Size is how much has been written.
func (d *draft) Size() int64 { return d.size }

// Write appends to the body. It fails with relay.ErrNoSpace when the disk is
// nearly full, with relay.ErrAccountFull when it is so for this account, and once it has failed it fails for good.
func (d *draft) Write(p []byte) (int, error) {
	if d.ended {
		return 0, errDraft
	}
	if d.err == nil {
		d.err = d.write(p)
	}
	if d.err != nil {
		return 0, d.err
	}
	return len(p), nil
}

func (d *draft) write(p []byte) error {
	if d.file == nil && d.size+int64(len(p)) <= inlineLimit {
		d.buf = append(d.buf, p...)
		d.size += int64(len(p))
		return nil
	}
	if d.file == nil || d.size/checkEvery != (d.size+int64(len(p)))/checkEvery {
		if err := d.reserve(int64(len(p))); err != nil {
			return err
		}
	}
	if d.file == nil {
		if err := d.spill(); err != nil {
			return err
		}
	}
	d.size += int64(len(p))
	// vfs.File.Write may change what it is given, and p is the caller's.
	for len(p) > 0 {
		n := copy(d.buf[:cap(d.buf)], p)
		if _, err := d.file.Write(d.buf[:n]); err != nil {
			return engine.Unavailable(err)
		}
		p = p[n:]
	}
	return nil
}

// reserve takes room for what comes until the next look at the free space.
func (d *draft) reserve(n int64) (err error) {
	if d.ours {
		return nil
	}
	d.room.End()
	d.room, err = d.s.reserve(d.who, int64(len(d.buf))+n+checkEvery)
	return err
}

// spill moves the body from memory to a spool file.
func (d *draft) spill() error {
	d.s.drafts.mu.Lock()
	d.s.drafts.next++
	d.name = d.s.fs.PathJoin(d.s.spool, fmt.Sprintf("%d%s", d.s.drafts.next, unnamed))
	d.s.drafts.mu.Unlock()
	file, err := d.s.fs.Create(d.name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return engine.Unavailable(err)
	}
	d.file = file
	if _, err := file.Write(d.buf); err != nil {
		return engine.Unavailable(err)
	}
	// A large body comes in for as long as its client likes. It needs no more of the
	// memory than to copy through.
	whole := d.buf
	d.buf = make([]byte, 0, copyBuffer)
	d.s.drafts.pool.Put(&whole)
	return nil
}

// InMemory is how much memory the draft holds.
func (d *draft) InMemory() int64 { return int64(cap(d.buf)) }

// Discard ends the draft without a message.
func (d *draft) Discard() {
	if !d.ended && d.file != nil {
		d.file.Close()
		d.s.remove(d.name)
	}
	d.end()
}

// keepWarm hands the memory of a small body on for the attempt that follows.
func (d *draft) keepWarm(id relay.MessageID) {
	if d.file == nil {
		d.s.warm.put(id, d.buf, &d.s.drafts.pool)
		d.buf = nil
	}
}

// end gives back the memory.
func (d *draft) end() {
	if d.ended {
		return
	}
	d.ended = true
	d.room.End()
	if buf := d.buf; cap(buf) > 0 {
		d.s.drafts.pool.Put(&buf)
	}
	d.buf = nil
}

// keep makes a large body durable under its message's name. After it the
// draft has nothing left to discard.
func (d *draft) keep(id relay.MessageID) error {
	err := errors.Join(d.file.Sync(), d.file.Close())
	if err == nil {
		err = d.s.fs.Rename(d.name, d.s.spoolFile(id))
	}
	if err == nil {
		err = engine.SyncDir(d.s.fs, d.s.spool)
	}
	if err != nil {
		d.s.remove(d.name)
		d.s.remove(d.s.spoolFile(id))
		return engine.Unavailable(err)
	}
	return nil
}

func (s *Store) spoolFile(id relay.MessageID) string { return s.fs.PathJoin(s.spool, id.String()) }

// remove deletes a spool file that nothing names. If that fails the next
// opening does it.
func (s *Store) remove(name string) {
	if err := s.fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("a spool file could not be removed", zap.String("file", s.fs.PathBase(name)), zap.Error(err))
	}
}

// spooled knows which queued messages have their body in a spool file.
type spooled struct {
	mu  sync.RWMutex
	ids map[relay.MessageID]struct{}
}

func (p *spooled) has(id relay.MessageID) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.ids[id]
	return ok
}

func (p *spooled) add(id relay.MessageID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ids == nil {
		p.ids = make(map[relay.MessageID]struct{})
	}
	p.ids[id] = struct{}{}
}

func (p *spooled) drop(id relay.MessageID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.ids, id)
}

// sweepDrafts removes the drafts that a crash left behind. It is for Open
// only: later there may be live ones.
func (s *Store) sweepDrafts() error {
	names, err := s.fs.List(s.spool)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, unnamed) {
			s.remove(s.fs.PathJoin(s.spool, name))
		}
	}
	return nil
}

// sweepSpool compares the spool files with the messages that name them: a
// file without a message is from an Accept that was cut off, and goes. A
// message without its file should not exist; it is reported and kept.
func (s *Store) sweepSpool(db *engine.DB) error {
	named := make(map[relay.MessageID]struct{})
	if err := db.EachPrefix([]byte(layout.Spooled), func(key, _ []byte) (bool, error) {
		id, err := layout.ParseSpooledKey(key)
		named[id] = struct{}{}
		return err == nil, err
	}); err != nil {
		return err
	}
	names, err := s.fs.List(s.spool)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	present := make(map[relay.MessageID]struct{}, len(names))
	for _, name := range names {
		id, err := relay.ParseMessageID(name)
		if err != nil {
			continue // not ours, or a draft
		}
		present[id] = struct{}{}
		if _, ok := named[id]; !ok {
			s.remove(s.fs.PathJoin(s.spool, name))
		}
	}
	for id := range named {
		if _, ok := present[id]; !ok {
			s.log.Error("the spool file of a queued message is missing; the message stays deferred", zap.Stringer("message", id))
		}
	}
	s.spooled.mu.Lock()
	defer s.spooled.mu.Unlock()
	s.spooled.ids = named
	return nil
}

// spoolBody is a body in a spool file.
type spoolBody struct {
	file vfs.File
	size int64
}

func (b spoolBody) NewReader() io.Reader { return io.NewSectionReader(b.file, 0, b.size) }
func (b spoolBody) Size() int64          { return b.size }
func (b spoolBody) Close() error         { return b.file.Close() }
