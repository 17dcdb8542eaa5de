package store

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// fence is the file system of one database instance. While it stands it
// passes everything on. The first write that fails trips it; after that,
// nothing that would change the disk does, and all of it "succeeds", the
// failed write included. So pebble never gets to see the failure that it
// would panic at, and what it does in its delusion (removing a log whose
// contents it believes flushed, say) stays without effect.
//
// The flag is set before the failed call returns, so whoever finds the fence
// standing after a commit knows that every write of the commit was real.
type fence struct {
	vfs.FS
	mu      sync.Mutex
	err     error
	tripped chan struct{} // closed when it trips
}

func newFence(fs vfs.FS) *fence {
	return &fence{FS: fs, tripped: make(chan struct{})}
}

// trip ends the instance. Only the first reason is kept.
func (f *fence) trip(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
		close(f.tripped)
	}
}

func (f *fence) isTripped() bool {
	select {
	case <-f.tripped:
		return true
	default:
		return false
	}
}

// reason is what tripped the fence, nil while it stands.
func (f *fence) reason() error {
	if !f.isTripped() {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// write runs one call that changes the disk, or pretends to.
func (f *fence) write(call func() error) error {
	if f.isTripped() {
		return nil
	}
	if err := call(); err != nil {
		f.trip(err)
	}
	return nil
}

// create opens a file for writing, or a pretence of one.
func (f *fence) create(name string, call func() (vfs.File, error)) (vfs.File, error) {
	var file vfs.File
	f.write(func() (err error) {
		file, err = call()
		return err
	})
	if f.isTripped() || file == nil {
		if file != nil {
			file.Close()
		}
		return nullFile{name: f.PathBase(name)}, nil
	}
	return &fencedFile{File: file, fence: f}, nil
}

func (f *fence) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *fence) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(to, func() (vfs.File, error) { return f.FS.ReuseForWrite(from, to, c) })
}

func (f *fence) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.create(name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, opts...) })
}

// OpenDir gives a directory to sync; to open it changes nothing.
func (f *fence) OpenDir(name string) (vfs.File, error) {
	if f.isTripped() {
		return nullFile{name: f.PathBase(name), dir: true}, nil
	}
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &fencedFile{File: file, fence: f}, nil
}

func (f *fence) Link(from, to string) error {
	return f.write(func() error { return f.FS.Link(from, to) })
}

func (f *fence) Rename(from, to string) error {
	return f.write(func() error { return f.FS.Rename(from, to) })
}

func (f *fence) MkdirAll(dir string, perm os.FileMode) error {
	return f.write(func() error { return f.FS.MkdirAll(dir, perm) })
}

// Remove may fail without harm: pebble logs it, and tries again when the
// database is next opened.
func (f *fence) Remove(name string) error {
	if f.isTripped() {
		return nil
	}
	return f.FS.Remove(name)
}

func (f *fence) RemoveAll(name string) error {
	if f.isTripped() {
		return nil
	}
	return f.FS.RemoveAll(name)
}

func (f *fence) Unwrap() vfs.FS { return f.FS }

// fencedFile is a file or directory behind the fence.
type fencedFile struct {
	vfs.File
	fence *fence
}

func (f *fencedFile) Write(p []byte) (int, error) {
	n := len(p) // File.Write may change p
	return n, f.fence.write(func() error {
		written, err := f.File.Write(p)
		if err == nil && written < n {
			err = io.ErrShortWrite
		}
		return err
	})
}

func (f *fencedFile) WriteAt(p []byte, off int64) (int, error) {
	n := len(p)
	return n, f.fence.write(func() error {
		_, err := f.File.WriteAt(p, off)
		return err
	})
}

func (f *fencedFile) Preallocate(offset, length int64) error {
	return f.fence.write(func() error { return f.File.Preallocate(offset, length) })
}

func (f *fencedFile) Sync() error     { return f.fence.write(f.File.Sync) }
func (f *fencedFile) SyncData() error { return f.fence.write(f.File.SyncData) }

func (f *fencedFile) SyncTo(length int64) (full bool, err error) {
	err = f.fence.write(func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full || f.fence.isTripped(), err
}

// Close really closes, so that nothing leaks; its error is that of a write.
func (f *fencedFile) Close() error {
	err := f.File.Close()
	return f.fence.write(func() error { return err })
}

// nullFile takes everything and keeps nothing.
type nullFile struct {
	name string
	dir  bool
}

var errNullFile = errors.New("store: the disk has failed")

func (nullFile) Read([]byte) (int, error)               { return 0, errNullFile }
func (nullFile) ReadAt([]byte, int64) (int, error)      { return 0, errNullFile }
func (nullFile) Write(p []byte) (int, error)            { return len(p), nil }
func (nullFile) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nullFile) Preallocate(_, _ int64) error           { return nil }
func (nullFile) Sync() error                            { return nil }
func (nullFile) SyncTo(int64) (bool, error)             { return true, nil }
func (nullFile) SyncData() error                        { return nil }
func (nullFile) Prefetch(_, _ int64) error              { return nil }
func (nullFile) Fd() uintptr                            { return vfs.InvalidFd }
func (nullFile) Close() error                           { return nil }

func (f nullFile) Stat() (vfs.FileInfo, error) { return nullInfo(f), nil }

// nullInfo describes a nullFile.
type nullInfo nullFile

func (i nullInfo) Name() string         { return i.name }
func (nullInfo) Size() int64            { return 0 }
func (nullInfo) ModTime() time.Time     { return time.Time{} }
func (i nullInfo) IsDir() bool          { return i.dir }
func (nullInfo) Sys() any               { return nil }
func (nullInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

func (i nullInfo) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o700
	}
	return 0o600
}
