package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"

	"tlsrelay/policy"
)

func TestFaultOf(t *testing.T) {
	alert := func(n uint8) error { return &net.OpError{Op: "remote error", Err: oddAlert(n)} }
	for _, c := range []struct {
		err   error
		asked bool
		fault policy.Fault
		alert uint8
	}{
		{io.EOF, false, policy.Closed, 0},
		{io.ErrUnexpectedEOF, false, policy.Closed, 0},
		{fmt.Errorf("read: %w", syscall.ECONNRESET), false, policy.Closed, 0},
		{syscall.EPIPE, false, policy.Closed, 0},
		{io.EOF, true, policy.Closed, 0},
		{fmt.Errorf("read: %w", syscall.ECONNRESET), true, policy.Closed, 0},
		{os.ErrDeadlineExceeded, false, policy.Timeout, 0},
		{os.ErrDeadlineExceeded, true, policy.Timeout, 0},
		{context.DeadlineExceeded, false, policy.Timeout, 0},
		{alert(80), false, policy.Alert, 80},
		{alert(80), true, policy.Alert, 80},
		{alert(116), true, policy.ClientCert, 116},
		{alert(40), true, policy.ClientCert, 40},
		{alert(40), false, policy.Alert, 40},
		{fmt.Errorf("wrapped: %w", alert(70)), false, policy.Alert, 70},
		{&net.OpError{Op: "local error", Err: oddAlert(40)}, false, policy.NoFault, 0},
		{tls.RecordHeaderError{}, false, policy.NotTLS, 0},
		{ErrReply, false, policy.Garbage, 0},
		{errors.New("tls: server sent certificate containing RSA key larger than 8192 bits"), false, policy.LocalLimit, 0},
		{errors.New("tls: invalid signature by the server certificate: x"), false, policy.LocalLimit, 0},
		{errors.New("tls: server selected unsupported curve"), false, policy.LocalLimit, 0},
		{errors.New("something new"), false, policy.NoFault, 0},
	} {
		if fault, n := FaultOf(c.err, c.asked); fault != c.fault || n != c.alert {
			t.Errorf("%v, asked %v: %s %d, want %s %d", c.err, c.asked, fault, n, c.fault, c.alert)
		}
	}
}

// TestErrorText: what goes into events and reports names the host's address at
// most, never ours.
func TestErrorText(t *testing.T) {
	host := netip.MustParseAddrPort("192.0.2.1:25")
	own := &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 40000}
	op := func(what string, err error) error {
		return fmt.Errorf("wrapped: %w", &net.OpError{Op: what, Net: "tcp", Source: own, Addr: net.TCPAddrFromAddrPort(host), Err: err})
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{op("dial", os.NewSyscallError("connect", syscall.ECONNREFUSED)), "connection refused by 192.0.2.1:25"},
		{op("dial", os.NewSyscallError("connect", syscall.EHOSTUNREACH)), "no route to 192.0.2.1:25"},
		{op("dial", os.NewSyscallError("connect", syscall.ENETUNREACH)), "no route to 192.0.2.1:25"},
		{op("dial", os.ErrDeadlineExceeded), "connection timed out"},
		{op("read", syscall.ECONNRESET), "connection lost"},
		{op("write", syscall.EPIPE), "connection lost"},
		{io.EOF, "connection lost"},
		{op("read", os.ErrDeadlineExceeded), "connection timed out"},
		{op("read", syscall.EIO), "connection failed"},
		{op("remote error", oddAlert(40)), "TLS alert 40 from the host (handshake failure)"},
		{op("remote error", oddAlert(200)), "TLS alert 200 from the host (alert(200))"},
		{tls.RecordHeaderError{}, "the host answered the TLS handshake with something else"},
		{ErrReply, "malformed reply"},
		{errors.New("tls: downgrade attempt detected, possibly due to a MitM attack or a broken middlebox"), "the TLS version was lowered on the way"},
		{errors.New("tls: server selected unsupported protocol version 301"), "the host chose too low a TLS version"},
		{errors.New("tls: server selected unsupported curve"), "the host's TLS is beyond what this relay can do"},
	} {
		if got := ErrorText(c.err, host); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// oddAlert looks like the alert type that crypto/tls does not export.
type oddAlert uint8

func (oddAlert) Error() string { return "tls: odd" }
