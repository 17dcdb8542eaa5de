package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"tlsrelay/configs"
)

// A client that trusts the certificate of a fresh relay verifies it by the
// address that it connects to, wherever the relay listens.
func TestFreshCertificateNamesWhatItListensOn(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Submission.Listen, c.Submission.ListenTLS = []string{"127.0.0.2:0"}, []string{"127.0.0.3:0"}
	})
	trusted, err := os.ReadFile(filepath.Join(r.config.DataDir, "submission.crt"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(trusted)
	addr := r.app.submission.AddrsTLS()[0].String()
	for _, name := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "::1", "localhost", r.config.Hostname} {
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: name})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		c.Close()
	}
}
