//go:build !linux

package submission

import "net"

// quickAck is for kernels that delay acknowledgements and can be told not to.
type quickAck struct{}

func (*quickAck) now(net.Conn) {}
