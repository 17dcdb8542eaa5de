package bodies

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/store/engine"
	"tlsrelay/relay/store/layout"
)

// Bodies has the bodies that are on their way in, in spool files, or still in memory.
// Its methods are safe for concurrent use, those of one [Draft] are not.
type Bodies struct {
	fs  vfs.FS
	dir string // of the spool files
	// reserve takes room on the disk for an account's mail.
	reserve func(who account.ID, octets int64) (engine.Reservation, error)
	log     *zap.Logger

	next atomic.Int64 // names of spool files, unique in this process
	pool sync.Pool    // of *[]byte

	mu      sync.Mutex
	spooled map[relay.MessageID]struct{} // queued messages whose body is in a spool file
	recent  recent
}

// New makes the room for bodies with its spool files in dir, which Recover makes. reserve
// takes room on the disk for large ones: relay.ErrNoSpace, relay.ErrAccountFull.
func New(fs vfs.FS, dir string, reserve func(account.ID, int64) (engine.Reservation, error), log *zap.Logger) *Bodies {
	return &Bodies{fs: fs, dir: dir, reserve: reserve, log: log, spooled: make(map[relay.MessageID]struct{})}
}

// Spooled reports whether a message has its body in a spool file.
func (b *Bodies) Spooled(id relay.MessageID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.spooled[id]
	return ok
}

// Unkeep takes back what Keep said of messages that have not been committed. The next
// opening of the database removes their files.
func (b *Bodies) Unkeep(ids []relay.MessageID) {
	if len(ids) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range ids {
		delete(b.spooled, id)
	}
}

// Open opens a body that is in memory or in a spool file; nil: neither has it.
// relay.ErrNoBody: the spool file is missing.
func (b *Bodies) Open(id relay.MessageID) (relay.Body, error) {
	b.mu.Lock()
	_, spooled := b.spooled[id]
	body := b.recent.get(id)
	b.mu.Unlock()
	if spooled {
		return b.openSpool(id)
	}
	return body, nil
}

// Inline is a body that was read from the database.
func Inline(body []byte) relay.Body { return inlineBody(body) }

// Forget drops the body of a message from memory.
func (b *Bodies) Forget(id relay.MessageID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recent.drop(id)
}

// Remove drops the body of a message that has left the queue, with its spool file.
func (b *Bodies) Remove(id relay.MessageID) {
	b.mu.Lock()
	b.recent.drop(id)
	_, spooled := b.spooled[id]
	delete(b.spooled, id)
	b.mu.Unlock()
	if spooled {
		b.remove(b.file(id))
	}
}

func (b *Bodies) openSpool(id relay.MessageID) (relay.Body, error) {
	file, err := b.fs.Open(b.file(id))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", relay.ErrNoBody, id)
	}
	if err != nil {
		return nil, engine.Unavailable(err)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, engine.Unavailable(err)
	}
	return spoolBody{file: file, size: info.Size()}, nil
}

// file is the name of the spool file of a message.
func (b *Bodies) file(id relay.MessageID) string { return b.fs.PathJoin(b.dir, id.String()) }

// remove deletes a spool file that nothing names. If that fails the next
// opening does it.
func (b *Bodies) remove(name string) {
	if err := b.fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		b.log.Warn("a spool file could not be removed", zap.String("file", b.fs.PathBase(name)), zap.Error(err))
	}
}

// SweepDrafts removes the drafts that a crash left behind. It is for Open
// only: later there may be live ones.
func (b *Bodies) SweepDrafts() error {
	names, err := b.fs.List(b.dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, unnamed) {
			b.remove(b.fs.PathJoin(b.dir, name))
		}
	}
	return nil
}

// Recover compares the spool files with the messages that name them: a
// file without a message is from an Accept that was cut off, and goes. A
// message without its file should not exist; it is reported and kept.
func (b *Bodies) Recover(db *engine.DB) error {
	if err := engine.MakeDir(b.fs, b.dir); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	named := make(map[relay.MessageID]struct{})
	if err := db.EachPrefix([]byte(layout.Spooled), func(key, _ []byte) (bool, error) {
		id, err := layout.ParseSpooledKey(key)
		named[id] = struct{}{}
		return err == nil, err
	}); err != nil {
		return err
	}
	names, err := b.fs.List(b.dir)
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
			b.remove(b.fs.PathJoin(b.dir, name))
		}
	}
	for id := range named {
		if _, ok := present[id]; !ok {
			b.log.Error("the spool file of a queued message is missing; the message stays deferred", zap.Stringer("message", id))
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spooled = named
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
