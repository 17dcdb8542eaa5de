//go:build unix

package unread

import (
	"net"
	"syscall"
)

// Has reports, without waiting, whether c holds bytes or an end that nobody has read
// yet; false where c cannot tell. For an SMTP session that is kept for another
// message either means that the host has hung up or is about to.
func Has(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	var peekErr error
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		_, _, peekErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err != nil || peekErr != syscall.EAGAIN && peekErr != syscall.EINTR
}
