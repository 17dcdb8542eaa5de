package deliver

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"tlsrelay/policy"
	"tlsrelay/relay/deliver/smtp/wire"
	"tlsrelay/relay/relaytest"
)

// TestGoTexts pins what crypto/tls of this Go release says and does in the
// cases that have no error type, against a real handshake.
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
			s := wire.NewConn(raw, 5*time.Second)
			if _, err := s.Read(s.Timeout); err != nil {
				t.Fatal(err)
			}
			for _, line := range []string{"EHLO relay.test", "STARTTLS"} {
				if rep, err := s.Command(line); err != nil || !rep.Positive() {
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
			fault, alert := wire.FaultOf(err, asked)
			if fault != c.fault || alert != c.alert {
				t.Errorf("%q: %s %d, want %s %d", err, fault, alert, c.fault, c.alert)
			}
		})
	}
}
