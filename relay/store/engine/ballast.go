package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"tlsrelay/relay"
)

// Opening the database takes room: what the logs hold becomes tables before the logs are
// removed. On a disk that is full to the last octet it could not be opened, and mail that
// was accepted not be delivered, until somebody makes room. So the store keeps a file
// that has no other use than to be removed then: the ballast.
const ballastName = "ballast"

// ballastTables is how many write buffers the ballast is as large as. Four may wait to
// become tables, a batch that is too large for one is beside them, and a new log sets
// aside as much.
const ballastTables = 6

// ballastEvery is how often the store looks whether there is room for the ballast.
const ballastEvery = 5 * time.Second

// ballastSize is how large the ballast is to be: with a min_free_disk that is small
// half as large, for then so is the disk. 0: there is none.
func (e *Engine) ballastSize() int64 {
	return min(ballastTables*e.o.MemTable, int64(min(e.o.MinFreeDisk, 1<<62))/2)
}

func (e *Engine) ballastFile() string { return e.fs.PathJoin(e.o.Dir, ballastName) }

// ballastLoop makes the ballast whenever it is missing and there is room for it.
func (e *Engine) ballastLoop(ctx context.Context) {
	tick := time.NewTicker(ballastEvery)
	defer tick.Stop()
	for {
		if err := e.takeBallast(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("the room that an opening of the store may need could not be set aside", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// takeBallast makes the ballast where it is missing, or not whole, if that leaves half
// of min_free_disk: wherever mail is taken, that is, there is one.
func (e *Engine) takeBallast(ctx context.Context) error {
	size, name := e.ballastSize(), e.ballastFile()
	if size == 0 {
		if err := e.fs.Remove(name); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	if info, err := e.fs.Stat(name); err == nil && info.Size() == size {
		return nil
	}
	// It comes before new mail, and after the outcomes of the old.
	usage, err := e.fs.GetDiskUsage(e.o.Dir)
	if err != nil || usage.AvailBytes < e.o.MinFreeDisk/2+uint64(size) {
		return nil // it is tried again; the metrics tell of a full disk
	}
	// The name says that it is whole. What a crash left of one is written over.
	made := name + ".tmp"
	err = e.writeBallast(ctx, made, size)
	if err == nil {
		err = e.fs.Rename(made, name)
	}
	if err != nil {
		return errors.Join(err, e.fs.Remove(made))
	}
	e.log.Info("room is set aside for an opening of the store on a full disk", zap.Int64("octets", size))
	return SyncDir(e.fs, e.o.Dir)
}

// writeBallast makes a file of size octets, which have their room on the disk.
func (e *Engine) writeBallast(ctx context.Context, name string, size int64) (err error) {
	file, err := e.fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if fd := file.Fd(); fd != vfs.InvalidFd && allocate(fd, size) == nil {
		return file.Sync()
	}
	// The file system may not be able to; then it is written, with what none can
	// compress, and bit by bit, so that no sync of the log waits behind all of it.
	noise, chunk := rand.NewChaCha8([32]byte{}), make([]byte, 1<<20)
	for at := int64(0); at < size && err == nil; at += int64(len(chunk)) {
		noise.Read(chunk)
		_, err = file.Write(chunk[:min(int64(len(chunk)), size-at)])
		err = errors.Join(err, ctx.Err(), file.Sync())
	}
	return err
}

// openWithBallast opens the database; where the disk has no room for that, with the
// room that was kept for it.
func (e *Engine) openWithBallast() (*DB, error) {
	db, err := e.openDB()
	if err == nil || !errors.Is(Unavailable(err), relay.ErrNoSpace) {
		return db, err
	}
	freed, sweepErr := e.sweepTables()
	if sweepErr != nil {
		e.log.Warn("what a failed opening left behind could not be removed", zap.Error(sweepErr))
	}
	had := e.fs.Remove(e.ballastFile()) == nil
	e.log.Warn("the disk has no room to open the store", zap.Error(err),
		zap.Int("tables_removed", freed), zap.Bool("ballast_released", had))
	if !had && freed == 0 {
		return nil, err
	}
	return e.openDB()
}

// sweepTables removes the tables that the database does not name: those that were
// being written when the disk had no room for more. Pebble does so when it has been
// opened; but every opening that fails leaves more of them, until they take what
// somebody frees for it. The caller knows that nobody has the database open. It is
// opened without a change to the disk, to ask for the names.
func (e *Engine) sweepTables() (n int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store: %v", p)
		}
	}()
	cache := pebble.NewCache(e.o.Cache)
	defer cache.Unref()
	o := e.pebbleOptions(&DB{faults: newFaultFS(e.fs)}, cache)
	o.ReadOnly = true
	db, err := pebble.Open(e.dir, o)
	if err != nil {
		return 0, err
	}
	levels, err := db.SSTables()
	if err = errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	named := make(map[string]struct{})
	for _, level := range levels {
		for i := range level {
			named[fmt.Sprintf("%s.sst", level[i].BackingSSTNum)] = struct{}{}
		}
	}
	files, err := e.fs.List(e.dir)
	for _, name := range files {
		if _, ok := named[name]; ok || !strings.HasSuffix(name, ".sst") {
			continue
		}
		if removeErr := e.fs.Remove(e.fs.PathJoin(e.dir, name)); removeErr != nil {
			err = errors.Join(err, removeErr)
			continue
		}
		n++
	}
	return n, err
}
