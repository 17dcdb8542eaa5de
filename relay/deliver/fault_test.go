package deliver

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
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay/relaytest"
)

// TestGoTexts pins what crypto/tls of this Go release says and does in the
// cases that have no error type, against a real handshake (tls-policy §10.7).
func TestGoTexts(t *testing.T) {
	const mx = "mx1.example.test"
	w := relaytest.Start(t)
	cert := func(c relaytest.Cert) *relaytest.Cert { c.Names = []string{mx}; return &c }
	for name, c := range map[string]struct {
		server relaytest.TLS
		client func(*tls.Config)
		fault  policy.Fault
		alert  uint8
	}{
		"alert 40":           {server: relaytest.TLS{Alert: 40}, fault: policy.Alert, alert: 40},
		"alert 112":          {server: relaytest.TLS{Alert: 112}, fault: policy.Alert, alert: 112},
		"not TLS":            {server: relaytest.TLS{Garbage: "500 what?\r\n"}, fault: policy.NotTLS},
		"EOF":                {server: relaytest.TLS{Do: relaytest.Close}, fault: policy.Closed},
		"RST":                {server: relaytest.TLS{Do: relaytest.Reset}, fault: policy.Closed},
		"silence":            {server: relaytest.TLS{Do: relaytest.Silence}, fault: policy.Timeout},
		"chosen too low":     {server: relaytest.TLS{Raw: serverHello(tls.VersionTLS10, 0x002f)}, fault: policy.VersionLow},
		"alert 70":           {server: relaytest.TLS{MaxVersion: tls.VersionTLS11}, fault: policy.Alert, alert: 70},
		"unparseable":        {server: relaytest.TLS{Cert: cert(relaytest.Cert{Unparseable: true})}, fault: policy.LocalLimit},
		"suite unoffered":    {server: relaytest.TLS{Raw: dheHello()}, fault: policy.LocalLimit},
		"downgrade":          {server: relaytest.TLS{Downgrade: true}, fault: policy.Downgrade},
		"authorities in 1.2": {server: authorities(t, w.CA, tls.VersionTLS12), fault: policy.LocalLimit},
		"authorities in 1.3": {server: authorities(t, w.CA, tls.VersionTLS13), fault: policy.LocalLimit},
		"chain in 1.2":       {server: longChain(t, w.CA, tls.VersionTLS12), fault: policy.LocalLimit},
		"chain in 1.3":       {server: longChain(t, w.CA, tls.VersionTLS13), fault: policy.LocalLimit},
		"no certificate in 1.2": {
			server: relaytest.TLS{ClientCert: true, MaxVersion: tls.VersionTLS12}, fault: policy.ClientCert, alert: 40,
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := w.Host(t, mx, relaytest.Script{TLS: c.server})
			raw, err := net.Dial("tcp", h.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			s := newConn(raw, 5*time.Second)
			if _, err := s.read(s.timeout); err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{"EHLO relay.test", "STARTTLS"} {
				if rep, err := s.command(line); err != nil || !rep.positive() {
					t.Fatalf("%s: %v %v", line, rep, err)
				}
			}
			asked := false
			limit := relaytest.Patience
			if c.fault == policy.Timeout {
				limit = 700 * time.Millisecond
			}
			raw.SetDeadline(time.Now().Add(limit))
			err = tls.Client(raw, &tls.Config{
				InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, ServerName: mx,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
					asked = true
					return &tls.Certificate{}, nil
				},
			}).Handshake()
			if err == nil {
				t.Fatal("the handshake succeeded")
			}
			fault, alert := faultOf(err, asked)
			if fault != c.fault || alert != c.alert {
				t.Errorf("%q: %s %d, want %s %d", err, fault, alert, c.fault, c.alert)
			}
		})
	}
}

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
		{errReply, false, policy.Garbage, 0},
		{errors.New("tls: server sent certificate containing RSA key larger than 8192 bits"), false, policy.LocalLimit, 0},
		{errors.New("tls: invalid signature by the server certificate: x"), false, policy.LocalLimit, 0},
		{errors.New("tls: server selected unsupported curve"), false, policy.LocalLimit, 0},
		{errors.New("something new"), false, policy.NoFault, 0},
	} {
		if fault, n := faultOf(c.err, c.asked); fault != c.fault || n != c.alert {
			t.Errorf("%v, asked %v: %s %d, want %s %d", c.err, c.asked, fault, n, c.fault, c.alert)
		}
	}
}

// TestWordsOf: what goes into events and reports names the host's address at
// most, never ours.
func TestWordsOf(t *testing.T) {
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
		{errReply, "malformed reply"},
		{errors.New("tls: downgrade attempt detected, possibly due to a MitM attack or a broken middlebox"), "the TLS version was lowered on the way"},
		{errors.New("tls: server selected unsupported protocol version 301"), "the host chose too low a TLS version"},
		{errors.New("tls: server selected unsupported curve"), "the host's TLS is beyond what this relay can do"},
	} {
		if got := wordsOf(c.err, host); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

// oddAlert looks like the alert type that crypto/tls does not export.
type oddAlert uint8

func (oddAlert) Error() string { return "tls: odd" }
