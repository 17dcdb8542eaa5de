//go:build !linux

package submission

import "net"

// quickAck does nothing on kernels that have no such option.
type quickAck struct{}

func (*quickAck) now(net.Conn) {}
