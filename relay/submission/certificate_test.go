package submission

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
)

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
	c, err := LoadCertificate(certFile, keyFile, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := c.Get(nil)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil || leaf.VerifyHostname(host) != nil || time.Until(leaf.NotAfter) < 9*365*24*time.Hour {
		t.Errorf("%v %v", leaf, err)
	}
}

func TestChangedCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, err := SelfSigned(dir, host)
	if err != nil {
		t.Fatal(err)
	}
	c, err := LoadCertificate(certFile, keyFile, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	old, _ := c.Get(nil)
	c.looked = time.Time{}
	if same, _ := c.Get(nil); same != old {
		t.Error("read again without a change")
	}

	// Half a renewal: the new certificate, the old key.
	cert, key, err := makeSelfSigned("new.example", time.Now())
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
	if _, err := LoadCertificate(none, none, zap.NewNop()); err == nil {
		t.Error("no error")
	}
}
