//go:build unix

package main

import (
	"math"
	"syscall"
)

// openFiles is how many files the process may have open; 0: it is not known. Go has
// raised it to the most that the system allows.
func openFiles() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil || uint64(l.Cur) > math.MaxInt32 {
		return 0
	}
	return int(l.Cur)
}
