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
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.uber.org/zap"
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
	var cert tls.Certificate
	if err == nil {
		cert, err = tls.LoadX509KeyPair(c.certFile, c.keyFile)
	}
	if err != nil {
		c.log.Warn("certificate could not be read again, the old one stays in use",
			zap.String("file", c.certFile), zap.Error(err))
		return
	}
	c.cert, c.stamp = &cert, stamp
	c.log.Info("certificate read again", zap.String("file", c.certFile))
}

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
// them when they are missing: P-256, for hostname, for ten years. Clients
// that verify will not like it; it is for encryption at first start.
func SelfSigned(dir, hostname string) (certFile, keyFile string, err error) {
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
	cert, key, err := makeSelfSigned(hostname, time.Now())
	if err != nil {
		return "", "", err
	}
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		return "", "", err
	}
	return certFile, keyFile, os.WriteFile(certFile, cert, 0o644)
}

func makeSelfSigned(hostname string, now time.Time) (cert, key []byte, err error) {
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
	if ip, err := netip.ParseAddr(hostname); err == nil {
		template.IPAddresses = append(template.IPAddresses, ip.AsSlice())
	} else {
		template.DNSNames = []string{hostname}
	}
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
