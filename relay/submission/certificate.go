package submission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/domain"
)

// Certificate is a certificate in two files that is read again when they
// change, so that a renewal needs no restart.
type Certificate struct {
	certFile, keyFile string
	log               *zap.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  string // of both files, when they were read
	cert   *tls.Certificate
}

// lookEvery bounds how often the files are looked at.
const lookEvery = time.Second

// LoadCertificate reads a PEM certificate chain and its key.
func LoadCertificate(certFile, keyFile string, log *zap.Logger) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile, log: log}
	stamp, err := c.files()
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	c.cert, c.stamp, c.looked = &cert, stamp, time.Now()
	return c, nil
}

// TLS gives a server configuration that uses the certificate.
func (c *Certificate) TLS() *tls.Config {
	return &tls.Config{GetCertificate: c.Get, MinVersion: tls.VersionTLS12}
}

// Get is for tls.Config.GetCertificate. When the files cannot be read, or do
// not fit each other because a renewal is half done, the old one stays.
func (c *Certificate) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= lookEvery {
		c.looked = time.Now()
		c.reload()
	}
	return c.cert, nil
}

func (c *Certificate) reload() {
	stamp, err := c.files()
	if err == nil && stamp == c.stamp {
		return
	}
	if err == nil {
		err = c.read(stamp)
	}
	if err != nil {
		c.log.Warn("certificate could not be read again, the old one stays in use",
			zap.String("file", c.certFile), zap.Error(err))
		return
	}
	c.log.Info("certificate read again", zap.String("file", c.certFile))
}

func (c *Certificate) read(stamp string) error {
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err == nil {
		c.cert, c.stamp = &cert, stamp
	}
	return err
}

// Reread reads the files now, whether they look changed or not. On an error the
// old certificate stays in use. It logs nothing.
func (c *Certificate) Reread() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked = time.Now()
	stamp, err := c.files()
	if err != nil {
		return err
	}
	return c.read(stamp)
}

// File is the name of the certificate's file.
func (c *Certificate) File() string { return c.certFile }

// files describes both files so that a change shows.
func (c *Certificate) files() (string, error) {
	stamp := ""
	for _, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return "", fmt.Errorf("certificate: %w", err)
		}
		stamp += fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size(), " ")
	}
	return stamp, nil
}

// SelfSigned gives the files of the self-signed certificate in dir and makes
// them when they are missing: P-256, for ten years, for hostname, this machine
// by its loopback names, and the hosts of the addresses in listen. A client
// that is given the certificate to trust can then verify it by whatever name it
// connects to; the others will not like it.
func SelfSigned(dir, hostname string, listen ...string) (certFile, keyFile string, err error) {
	certFile = filepath.Join(dir, "submission.crt")
	keyFile = filepath.Join(dir, "submission.key")
	_, certErr := os.Stat(certFile)
	_, keyErr := os.Stat(keyFile)
	switch {
	case certErr == nil && keyErr == nil:
		return certFile, keyFile, nil
	case certErr != nil && !errors.Is(certErr, os.ErrNotExist):
		return "", "", certErr
	case keyErr != nil && !errors.Is(keyErr, os.ErrNotExist):
		return "", "", keyErr
	}
	cert, key, err := makeSelfSigned(hostname, listen, time.Now())
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		return "", "", err
	}
	return certFile, keyFile, os.WriteFile(certFile, cert, 0o644)
}

func makeSelfSigned(hostname string, listen []string, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: hostname},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},

		BasicConstraintsValid: true,
	}
	names := []string{hostname, "localhost", "127.0.0.1", "::1"}
	for _, l := range listen {
		if host, _, err := net.SplitHostPort(l); err == nil {
			names = append(names, host)
		}
	}
	addNames(template, names)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	return cert, key, nil
}

// addNames adds names and addresses, each once, in the form that certificates
// have them (RFC 5280 §4.2.1.6). 0.0.0.0 and :: are nobody's address.
func addNames(template *x509.Certificate, names []string) {
	seen := make(map[string]bool)
	for _, name := range names {
		ip, err := netip.ParseAddr(name)
		if ip = ip.Unmap().WithZone(""); err == nil {
			name = ip.String()
		} else if n, err := domain.Parse(name); err == nil {
			name = n.String()
		}
		switch {
		case seen[name], name == "", ip.IsUnspecified():
		case ip.IsValid():
			template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
		default:
			template.DNSNames = append(template.DNSNames, name)
		}
		seen[name] = true
	}
}
