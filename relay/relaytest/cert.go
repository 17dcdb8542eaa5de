package relaytest

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net"
	"time"
)

// Cert says what a certificate is to be like. The zero Cert, once it has
// Names, is one that every check passes.
type Cert struct {
	Names []string // subject alternative names: host names and addresses
	CN    string   // common name; alone, without Names, the name counts for nothing
	Key   Key

	Expired     bool
	NotYetValid bool
	WrongUsage  bool // clientAuth only
	SHA1        bool // signed with SHA-1, by an RSA intermediate of the root

	SelfSigned          bool
	UnknownCA           bool // signed by an authority that is in no pool
	Intermediate        bool // signed by an intermediate, which is sent along
	MissingIntermediate bool // signed by an intermediate, which is not sent
	// Unparseable gives it a negative serial number, which crypto/x509 does not
	// parse.
	Unparseable bool
}

// Issue makes a certificate with its key and chain.
func (ca *CA) Issue(c Cert) (tls.Certificate, error) {
	key, err := newKey(c.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := c.template()
	by, err := ca.issuerOf(c)
	if err != nil {
		return tls.Certificate{}, err
	}
	if c.SelfSigned {
		by = &issuer{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, key.Public(), by.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	if c.Unparseable {
		if der, err = negateSerial(der, template.SerialNumber.Bytes()); err != nil {
			return tls.Certificate{}, err
		}
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	if c.Intermediate || c.SHA1 {
		cert.Certificate = append(cert.Certificate, by.cert.Raw)
	}
	return cert, nil
}

func (ca *CA) issuerOf(c Cert) (*issuer, error) {
	switch {
	case c.UnknownCA:
		return ca.stranger()
	case c.SHA1:
		return ca.rsaIntermediate()
	case c.Intermediate, c.MissingIntermediate:
		return ca.intermediate()
	}
	return &ca.root, nil
}

func (c Cert) template() *x509.Certificate {
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: c.CN},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(90 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if c.Key == KeyRSA1024 || c.Key == KeyRSA2048 {
		t.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	if c.Expired {
		t.NotBefore, t.NotAfter = now.Add(-20*24*time.Hour), now.Add(-24*time.Hour)
	}
	if c.NotYetValid {
		t.NotBefore = now.Add(24 * time.Hour)
	}
	if c.WrongUsage {
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	if c.SHA1 {
		t.SignatureAlgorithm = x509.SHA1WithRSA
	}
	for _, name := range c.Names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	return t
}

// negateSerial sets the sign bit of the serial number. The signature breaks,
// but nobody comes as far as checking it.
func negateSerial(der, serial []byte) ([]byte, error) {
	i := bytes.Index(der, serial)
	if i < 0 {
		return nil, errors.New("relaytest: serial number not found in certificate")
	}
	der = bytes.Clone(der)
	der[i] |= 0x80
	return der, nil
}
