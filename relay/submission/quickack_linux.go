package submission

import (
	"net"
	"syscall"
)

// quickAck has a socket acknowledge what it has received. The kernel delays
// that for 40 ms in the hope of data to send along, and there is none while
// content comes in; a client's kernel may hold the rest back for as long
// (Nagle's algorithm, RFC 9293 §3.7.4). Replies switch the delay on again, so
// this is said again before each read.
type quickAck struct {
	socket syscall.RawConn // nil before the first use
	set    func(fd uintptr)
}

func (q *quickAck) now(c net.Conn) {
	if q.set == nil {
		q.set = func(fd uintptr) {
			// A socket that cannot do that is only slower.
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
		}
		if sc, ok := c.(syscall.Conn); ok {
			q.socket, _ = sc.SyscallConn()
		}
	}
	if q.socket != nil {
		_ = q.socket.Control(q.set)
	}
}
