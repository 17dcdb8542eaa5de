package certificate

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
)

const host = "relay.example"

func TestSelfSignedIsMadeOnce(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, err := SelfSigned(dir, host)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := os.ReadFile(certFile)
	if _, _, err := SelfSigned(dir, "other.example"); err != nil {
		t.Fatal(err)
	}
	if again, _ := os.ReadFile(certFile); string(again) != string(first) {
		t.Error("made again")
	}
	if info, _ := os.Stat(keyFile); info.Mode().Perm() != 0o600 {
		t.Errorf("key is %v", info.Mode())
	}
	c, err := Load(certFile, keyFile, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := c.Get(nil)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil || leaf.VerifyHostname(host) != nil || time.Until(leaf.NotAfter) < 9*365*24*time.Hour {
		t.Errorf("%v %v", leaf, err)
	}
}

// Whoever trusts the certificate can connect by any name that the relay has.
func TestSelfSignedNamesWhereItListens(t *testing.T) {
	for hostname, c := range map[string]struct {
		listen []string
		names  string
	}{
		host:             {nil, "relay.example localhost 127.0.0.1 ::1"},
		"Bücher.example": {[]string{"127.0.0.1:25", "localhost:587"}, "xn--bcher-kva.example localhost 127.0.0.1 ::1"},
		"localhost":      {[]string{"192.0.2.1:25", ":587", "0.0.0.0:465", "[::]:465"}, "localhost 127.0.0.1 ::1 192.0.2.1"},
		"192.0.2.2":      {[]string{"[2001:DB8::1]:25", "[fe80::1%eth0]:25", "mail.internal.:25"}, "localhost mail.internal 192.0.2.2 127.0.0.1 ::1 2001:db8::1 fe80::1"},
	} {
		certPEM, _, err := makeSelfSigned(hostname, c.listen, time.Now())
		if err != nil {
			t.Fatal(hostname, err)
		}
		block, _ := pem.Decode(certPEM)
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		names := leaf.DNSNames
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		if got := strings.Join(names, " "); got != c.names {
			t.Errorf("%s: %s", hostname, got)
		}
		for _, name := range names {
			if err := leaf.VerifyHostname(name); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestChangedCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, err := SelfSigned(dir, host)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(certFile, keyFile, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	old, _ := c.Get(nil)
	c.looked = time.Time{}
	if same, _ := c.Get(nil); same != old {
		t.Error("read again without a change")
	}

	// Half a renewal: the new certificate, the old key.
	cert, key, err := makeSelfSigned("new.example", nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, cert)
	c.looked = time.Time{}
	if same, _ := c.Get(nil); same != old {
		t.Error("took a pair that does not fit")
	}
	write(t, keyFile, key)
	c.looked = time.Time{}
	fresh, _ := c.Get(nil)
	if leaf, err := x509.ParseCertificate(fresh.Certificate[0]); err != nil || leaf.VerifyHostname("new.example") != nil {
		t.Error("the new pair is not in use")
	}
	if err := os.Remove(keyFile); err != nil {
		t.Fatal(err)
	}
	c.looked = time.Time{}
	if same, err := c.Get(nil); same != fresh || err != nil {
		t.Error("lost the certificate with its file")
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMissingCertificateIsAnError(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	if _, err := Load(none, none, zap.NewNop()); err == nil {
		t.Error("no error")
	}
}
