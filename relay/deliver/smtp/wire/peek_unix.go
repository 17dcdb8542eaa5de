//go:build unix

package wire

import (
	"net"
	"syscall"
)

// readable reports, without waiting, whether c holds bytes, or an end, that
// are not read yet. For an idle SMTP session either means that the host
// has hung up or is about to.
func readable(c net.Conn) bool {
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
