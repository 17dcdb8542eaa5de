package submission

import (
	"net"
	"syscall"
)

// quickAck makes a socket acknowledge at once what it has received. The kernel
// delays acknowledgements by 40 ms, to send them along with data. While content
// comes in there is no data to send, and the client's kernel may wait for the
// acknowledgement before it sends the rest (Nagle's algorithm, RFC 9293 §3.7.4).
// A reply switches the delay on again, so now is called before each read.
type quickAck struct {
	socket syscall.RawConn // nil before the first use
	set    func(fd uintptr)
}

func (q *quickAck) now(c net.Conn) {
	if q.set == nil {
		q.set = func(fd uintptr) {
			// Without it the socket is only slower.
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
