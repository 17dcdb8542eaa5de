package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"syscall"

	"tlsrelay/policy"
)

// FaultOf says what an error of the network, of crypto/tls or of the reply reader
// means, and gives the number of an alert. asked tells that the host requested a
// client certificate: an alert may then be its answer to getting none (row C5). A
// host that leaves without an alert has not said so: many hosts ask and do without,
// and connections break for many reasons. An error that means nothing in particular
// is NoFault.
func FaultOf(err error, asked bool) (policy.Fault, uint8) {
	if alert, ok := remoteAlert(err); ok {
		if asked && refusesClient(alert) {
			return policy.ClientCert, alert
		}
		return policy.Alert, alert
	}
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return policy.NotTLS, 0
	case errors.Is(err, ErrReply):
		return policy.Garbage, 0
	case IsTimeout(err):
		return policy.Timeout, 0
	case IsClosed(err):
		return policy.Closed, 0
	}
	return tlsFault(err.Error()), 0
}

// tlsFault recognises the errors of crypto/tls that have no type. TestGoTexts in
// relay/deliver holds their texts to the Go release in use.
func tlsFault(text string) policy.Fault {
	switch {
	case strings.Contains(text, "downgrade attempt detected"):
		return policy.Downgrade
	case strings.Contains(text, "selected unsupported protocol version"):
		return policy.VersionLow
	}
	for _, limit := range localLimits {
		if strings.Contains(text, limit) {
			return policy.LocalLimit
		}
	}
	return policy.NoFault
}

// localLimits are what crypto/tls says of a host that it cannot talk to
// though another TLS stack might (row C6).
var localLimits = [...]string{
	"failed to parse certificate",
	"RSA key larger than",
	"invalid signature by the server certificate",
	"certificate used with invalid signature algorithm",
	"unsupported type of public key",
	"unsupported curve",
	"unsupported group",
	"unoffered curve",
	"unconfigured cipher suite",
	"crypto/rsa:",
	// A certificate request with hundreds of authorities, or a chain of hundreds of
	// certificates: handshake messages over 64 KiB, of certificates 256 KiB.
	"handshake message of length",
	"FIPS 140-3 requires",
}

// remoteAlert gives the number of an alert that the host sent. Over TCP
// crypto/tls gives a net.OpError around an unexported uint8, which
// tls.AlertError does not match.
func remoteAlert(err error) (uint8, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	if v.Kind() != reflect.Uint8 {
		return 0, false
	}
	return uint8(v.Uint()), true
}

// ErrorText says in plain words what an error of a connection to addr means. Go's own
// texts would tell strangers our address and port, and change with its releases.
func ErrorText(err error, addr netip.AddrPort) string {
	fault, alert := FaultOf(err, false)
	switch {
	case errors.Is(err, ErrStep):
		return "the replies do not match the commands"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused by " + addr.String()
	case NoRoute(err), errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to " + addr.String()
	case fault == policy.NoFault:
		return "connection failed"
	case fault == policy.Alert:
		name := strings.TrimPrefix(tls.AlertError(alert).Error(), "tls: ")
		return "TLS alert " + strconv.Itoa(int(alert)) + " from the host (" + name + ")"
	}
	return faultTexts[fault]
}

var faultTexts = map[policy.Fault]string{
	policy.Timeout:    "connection timed out",
	policy.Closed:     "connection lost",
	policy.Garbage:    "malformed reply",
	policy.NotTLS:     "the host answered the TLS handshake with something else",
	policy.VersionLow: "the host chose too low a TLS version",
	policy.LocalLimit: "the host's TLS is beyond what this relay can do",
	policy.Downgrade:  "the TLS version was lowered on the way",
}

// refusesClient reports whether a TLS stack sends this alert for want of a client
// certificate. The standard has 116 in TLS 1.3 and 40 before it (RFC 8446 §6.2,
// RFC 5246 §7.4.6); stacks in the field send any of the certificate alerts.
func refusesClient(alert uint8) bool {
	switch alert {
	case 40, 41, 42, 43, 44, 45, 46, 48, 49, 116:
		return true
	}
	return false
}

// IsTimeout reports whether a deadline passed.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &ne) && ne.Timeout()
}

// IsClosed reports whether the connection has ended, at either end.
func IsClosed(err error) bool {
	for _, e := range []error{
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
		syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EPIPE,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// NoRoute reports whether this machine cannot dial an address at all. That is no
// evidence against the host.
func NoRoute(err error) bool {
	for _, e := range []error{
		syscall.ENETUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.EPROTONOSUPPORT,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
