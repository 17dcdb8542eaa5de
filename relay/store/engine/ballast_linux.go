package engine

import "syscall"

// allocate gives a file its size and the room for it, without a write.
func allocate(fd uintptr, size int64) error { return syscall.Fallocate(int(fd), 0, 0, size) }
