package relaytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync"
	"time"
)

// CA is a certificate authority for one test world. Its methods are safe for
// concurrent use.
type CA struct {
	root issuer

	mu    sync.Mutex
	inter *issuer // made when first asked for
	other *CA     // an authority that nobody trusts
	rsa   *issuer // an RSA root under root, for SHA-1: ECDSA with SHA-1 is too rare to matter
}

// issuer is a certificate that signs others.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// NewCA makes an authority with an ECDSA P-256 root.
func NewCA() (*CA, error) {
	root, err := newIssuer("Test Root", nil, KeyP256)
	if err != nil {
		return nil, err
	}
	return &CA{root: *root}, nil
}

func newIssuer(cn string, parent *issuer, kind Key) (*issuer, error) {
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: cn, Organization: []string{"relaytest"}},
		NotBefore:             now.Add(-30 * 24 * time.Hour),
		NotAfter:              now.Add(365 * 24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	by := issuer{template, key}
	if parent != nil {
		by = *parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &issuer{cert, key}, err
}

// PEM is the root certificate, as root_ca_file wants it.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.root.cert.Raw})
}

// Pool is a pool that trusts this authority alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.root.cert)
	return pool
}

// Root is the root certificate.
func (ca *CA) Root() *x509.Certificate { return ca.root.cert }

func (ca *CA) intermediate() (*issuer, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.inter == nil {
		i, err := newIssuer("Test Intermediate", &ca.root, KeyP256)
		if err != nil {
			return nil, err
		}
		ca.inter = i
	}
	return ca.inter, nil
}

func (ca *CA) rsaIntermediate() (*issuer, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.rsa == nil {
		i, err := newIssuer("Test RSA Intermediate", &ca.root, KeyRSA2048)
		if err != nil {
			return nil, err
		}
		ca.rsa = i
	}
	return ca.rsa, nil
}

func (ca *CA) stranger() (*issuer, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	if ca.other == nil {
		other, err := NewCA()
		if err != nil {
			return nil, err
		}
		ca.other = other
	}
	return &ca.other.root, nil
}

// Key is a kind of key.
type Key int

// The kinds of keys.
const (
	KeyP256    Key = iota
	KeyP224        // below every list of TLS 1.3: needs MaxVersion 1.2
	KeyRSA2048     // also for hosts that know RSA key exchange only
	KeyRSA1024
)

func newKey(kind Key) (crypto.Signer, error) {
	switch kind {
	case KeyRSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case KeyRSA1024:
		return rsa.GenerateKey(rand.Reader, 1024)
	case KeyP224:
		return ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// serial gives a positive serial number whose DER is exactly eight octets.
func serial() *big.Int {
	var b [8]byte
	rand.Read(b[:])
	b[0] = b[0]&0x3f | 0x40
	return new(big.Int).SetBytes(b[:])
}
