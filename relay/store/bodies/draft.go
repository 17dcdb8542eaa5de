package bodies

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
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

// Draft is a body on its way in.
type Draft struct {
	of    *Bodies
	who   account.ID // whose message; its room is asked for
	buf   []byte     // the body, until it is too large
	file  vfs.File   // then the spool file
	name  string
	size  int64
	err   error
	ended bool
	ours  bool               // of a report, which is part of what was promised: it asks for no room
	room  engine.Reservation // on the disk, for what is written next
}

// NewDraft begins a body of an account's message.
func (b *Bodies) NewDraft(who account.ID) *Draft {
	d := &Draft{of: b, who: who}
	if buf, ok := b.pool.Get().(*[]byte); ok {
		d.buf = (*buf)[:0]
	}
	return d
}

// NewReport begins the body of a report. It is part of what was promised, and asks for
// no room on the disk.
func (b *Bodies) NewReport() *Draft {
	d := b.NewDraft("")
	d.ours = true
	return d
}

// Draft gives back a draft of NewDraft that is open still. What else it is given is an
// error.
func (b *Bodies) Draft(body relay.Draft) (*Draft, error) {
	d, ok := body.(*Draft)
	if !ok || d.of != b || d.ended {
		return nil, errDraft
	}
	return d, nil
}

// Err is the error of a write that has failed.
func (d *Draft) Err() error { return d.err }

// Inline gives a body that is so small that it goes into the database. It is good
// until the draft ends.
func (d *Draft) Inline() (body []byte, ok bool) { return d.buf, d.file == nil }

// Size is how much has been written.
func (d *Draft) Size() int64 { return d.size }

// Write appends to the body. It fails with relay.ErrNoSpace when the disk is nearly
// full, and with relay.ErrAccountFull when it is so for this account. Once it has failed
// it fails for good.
func (d *Draft) Write(p []byte) (int, error) {
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

func (d *Draft) write(p []byte) error {
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
func (d *Draft) reserve(n int64) (err error) {
	if d.ours {
		return nil
	}
	d.room.End()
	d.room, err = d.of.reserve(d.who, int64(len(d.buf))+n+checkEvery)
	return err
}

// spill moves the body from memory to a spool file.
func (d *Draft) spill() error {
	d.name = d.of.fs.PathJoin(d.of.dir, fmt.Sprintf("%d%s", d.of.next.Add(1), unnamed))
	file, err := d.of.fs.Create(d.name, vfs.WriteCategoryUnspecified)
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
	d.of.pool.Put(&whole)
	return nil
}

// InMemory is how much memory the draft holds.
func (d *Draft) InMemory() int64 { return int64(cap(d.buf)) }

// Discard ends the draft without a message.
func (d *Draft) Discard() {
	if !d.ended && d.file != nil {
		d.file.Close()
		d.of.remove(d.name)
	}
	d.End()
}

// KeepRecent hands the memory of a small body on for the attempt that follows.
func (d *Draft) KeepRecent(id relay.MessageID) {
	if d.file != nil {
		return
	}
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.of.recent.put(id, d.buf, &d.of.pool)
	d.buf = nil
}

// End gives back the memory.
func (d *Draft) End() {
	if d.ended {
		return
	}
	d.ended = true
	d.room.End()
	if buf := d.buf; cap(buf) > 0 {
		d.of.pool.Put(&buf)
	}
	d.buf = nil
}

// Keep makes a large body durable under its message's name, before a batch names it.
// After it the draft has nothing left to discard. If that batch is not committed the
// caller calls Unkeep.
func (d *Draft) Keep(id relay.MessageID) error {
	err := errors.Join(d.file.Sync(), d.file.Close())
	if err == nil {
		err = d.of.fs.Rename(d.name, d.of.file(id))
	}
	if err == nil {
		err = engine.SyncDir(d.of.fs, d.of.dir)
	}
	if err != nil {
		d.of.remove(d.name)
		d.of.remove(d.of.file(id))
		return engine.Unavailable(err)
	}
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	d.of.spooled[id] = struct{}{}
	return nil
}
