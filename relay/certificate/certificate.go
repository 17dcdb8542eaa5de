// Package certificate reads the certificate that a listener shows its clients,
// and makes a self-signed one where the operator has none. The listeners of
// submission, the API and the operator all use it.
package certificate

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

// Pair is a certificate chain and its key, in two PEM files. They are read
// again when they change, so that a renewal needs no restart.
type Pair struct {
	certFile, keyFile string
	log               *zap.Logger

	mu     sync.Mutex
	looked time.Time
	stamp  string // of both files, when they were read
	cert   *tls.Certificate
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

// Load reads a certificate chain and its key. It logs later changes of the files to
// log.
func Load(certFile, keyFile string, log *zap.Logger) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile, log: log}
	stamp, err := p.files()
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate %s: %w", certFile, err)
	}
	p.cert, p.stamp, p.looked = &cert, stamp, time.Now()
	return p, nil
}

// TLS gives a server configuration that uses the certificate.
func (p *Pair) TLS() *tls.Config {
	return &tls.Config{GetCertificate: p.Get, MinVersion: tls.VersionTLS12}
}

// Get is for tls.Config.GetCertificate. The old certificate stays in use when the
// files cannot be read, or do not belong together because a renewal is half done.
// Get returns no error.
func (p *Pair) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.looked) >= lookEvery {
		p.looked = time.Now()
		p.reload()
	}
	return p.cert, nil
}

func (p *Pair) reload() {
	stamp, err := p.files()
	if err == nil && stamp == p.stamp {
		return
	}
	if err == nil {
		err = p.read(stamp)
	}
	if err != nil {
		p.log.Warn("certificate could not be read again, the old one stays in use",
			zap.String("file", p.certFile), zap.Error(err))
		return
	}
	p.log.Info("certificate read again", zap.String("file", p.certFile))
}

func (p *Pair) read(stamp string) error {
	cert, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
	if err == nil {
		p.cert, p.stamp = &cert, stamp
	}
	return err
}

// Reread reads the files now, even if they look unchanged. After an error the old
// certificate stays in use. It logs nothing.
func (p *Pair) Reread() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looked = time.Now()
	stamp, err := p.files()
	if err != nil {
		return err
	}
	return p.read(stamp)
}

// File is the path of the certificate chain, as it was given to Load.
func (p *Pair) File() string { return p.certFile }

// files returns a string that changes when one of the files changes.
func (p *Pair) files() (string, error) {
	stamp := ""
	for _, name := range []string{p.certFile, p.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return "", fmt.Errorf("certificate: %w", err)
		}
		stamp += fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size(), " ")
	}
	return stamp, nil
}

// SelfSigned returns the paths of a self-signed certificate in dir and of its key.
// It makes them if they are missing: P-256, valid for ten years, for hostname, for
// the loopback names of this machine, and for the hosts of the addresses in listen.
// A client that trusts the certificate can then verify it by any name that it
// connects to. Other clients cannot verify it.
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

// addNames adds names and addresses, each once, in the form of RFC 5280 §4.2.1.6. It
// leaves out 0.0.0.0 and ::, which no client connects to.
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
