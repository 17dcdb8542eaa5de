package engine

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// faultFS is the fault-stopping file system of one database instance. It passes
// everything on until a write fails. That trips it: after that nothing that would
// change the disk does, and all of it "succeeds", the failed write included. So
// pebble never sees the failure that it would panic at, and what it then does
// (removing a log whose contents it believes flushed, say) has no effect.
//
// The flag is set before the failed call returns. If it is not set after a
// commit, every write of that commit was real.
type faultFS struct {
	vfs.FS
	trips   sync.Once
	err     error         // why it tripped; written before tripped is closed
	tripped chan struct{} // closed when it trips
}

func newFaultFS(fs vfs.FS) *faultFS {
	return &faultFS{FS: fs, tripped: make(chan struct{})}
}

// trip ends the instance. Only the first reason is kept.
func (f *faultFS) trip(err error) {
	f.trips.Do(func() {
		f.err = err
		close(f.tripped)
	})
}

func (f *faultFS) isTripped() bool {
	select {
	case <-f.tripped:
		return true
	default:
		return false
	}
}

// reason is what tripped it, nil while nothing has.
func (f *faultFS) reason() error {
	if !f.isTripped() {
		return nil
	}
	return f.err
}

// write runs one call that changes the disk, or pretends to.
func (f *faultFS) write(call func() error) error {
	if f.isTripped() {
		return nil
	}
	if err := call(); err != nil {
		f.trip(err)
	}
	return nil
}

// create opens a file for writing, or a pretence of one.
func (f *faultFS) create(name string, call func() (vfs.File, error)) (vfs.File, error) {
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
	return &faultFile{File: file, faults: f}, nil
}

func (f *faultFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(name, func() (vfs.File, error) { return f.FS.Create(name, c) })
}

func (f *faultFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.create(to, func() (vfs.File, error) { return f.FS.ReuseForWrite(from, to, c) })
}

func (f *faultFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	return f.create(name, func() (vfs.File, error) { return f.FS.OpenReadWrite(name, c, opts...) })
}

// OpenDir gives a directory to sync; to open it changes nothing.
func (f *faultFS) OpenDir(name string) (vfs.File, error) {
	if f.isTripped() {
		return nullFile{name: f.PathBase(name), dir: true}, nil
	}
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, faults: f}, nil
}

func (f *faultFS) Link(from, to string) error {
	return f.write(func() error { return f.FS.Link(from, to) })
}

func (f *faultFS) Rename(from, to string) error {
	return f.write(func() error { return f.FS.Rename(from, to) })
}

func (f *faultFS) MkdirAll(dir string, perm os.FileMode) error {
	return f.write(func() error { return f.FS.MkdirAll(dir, perm) })
}

// Remove may fail without harm: pebble logs it, and tries again when the
// database is next opened.
func (f *faultFS) Remove(name string) error {
	if f.isTripped() {
		return nil
	}
	return f.FS.Remove(name)
}

func (f *faultFS) RemoveAll(name string) error {
	if f.isTripped() {
		return nil
	}
	return f.FS.RemoveAll(name)
}

func (f *faultFS) Unwrap() vfs.FS { return f.FS }

// faultFile is a file or directory of a faultFS.
type faultFile struct {
	vfs.File
	faults *faultFS
}

func (f *faultFile) Write(p []byte) (int, error) {
	n := len(p) // File.Write may change p
	return n, f.faults.write(func() error {
		written, err := f.File.Write(p)
		if err == nil && written < n {
			err = io.ErrShortWrite
		}
		return err
	})
}

func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	n := len(p)
	return n, f.faults.write(func() error {
		_, err := f.File.WriteAt(p, off)
		return err
	})
}

func (f *faultFile) Preallocate(offset, length int64) error {
	return f.faults.write(func() error { return f.File.Preallocate(offset, length) })
}

func (f *faultFile) Sync() error     { return f.faults.write(f.File.Sync) }
func (f *faultFile) SyncData() error { return f.faults.write(f.File.SyncData) }

func (f *faultFile) SyncTo(length int64) (full bool, err error) {
	err = f.faults.write(func() (err error) {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full || f.faults.isTripped(), err
}

// Close really closes, so that nothing leaks; its error is that of a write.
func (f *faultFile) Close() error {
	err := f.File.Close()
	return f.faults.write(func() error { return err })
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
