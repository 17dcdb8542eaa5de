package relaytest

import (
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
)

// handshake runs a server with cert on a pipe and gives what a client that
// checks nothing itself saw.
func handshake(t *testing.T, cert tls.Certificate) (tls.ConnectionState, error) {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	// P-224 and old signatures exist up to TLS 1.2 only.
	server := tls.Server(b, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS12})
	go server.Handshake()
	client := tls.Client(a, &tls.Config{InsecureSkipVerify: true})
	client.SetDeadline(time.Now().Add(Patience))
	err := client.Handshake()
	return client.ConnectionState(), err
}

func TestCertificates(t *testing.T) {
	const name = "mx1.example.test"
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	is := func(reason x509.InvalidReason) func(error) bool {
		return func(err error) bool {
			var e x509.CertificateInvalidError
			return errors.As(err, &e) && e.Reason == reason
		}
	}
	untrusted := func(err error) bool { return errors.As(err, &x509.UnknownAuthorityError{}) }
	wrongName := func(err error) bool { return errors.As(err, &x509.HostnameError{}) }
	fine := func(err error) bool { return err == nil }
	names := []string{name}
	for _, c := range []struct {
		what string
		cert Cert
		want func(error) bool
	}{
		{"good", Cert{Names: names}, fine},
		{"wildcard", Cert{Names: []string{"*.example.test"}}, fine},
		{"intermediate", Cert{Names: names, Intermediate: true}, fine},
		{"missing intermediate", Cert{Names: names, MissingIntermediate: true}, untrusted},
		{"other name", Cert{Names: []string{"other.test"}}, wrongName},
		{"CN only", Cert{CN: name}, wrongName},
		{"expired", Cert{Names: names, Expired: true}, is(x509.Expired)},
		{"not yet valid", Cert{Names: names, NotYetValid: true}, is(x509.Expired)},
		{"wrong usage", Cert{Names: names, WrongUsage: true}, is(x509.IncompatibleUsage)},
		{"self-signed", Cert{Names: names, SelfSigned: true}, untrusted},
		{"unknown CA", Cert{Names: names, UnknownCA: true}, untrusted},
		{"SHA-1", Cert{Names: names, SHA1: true}, func(err error) bool { return err != nil && strings.Contains(err.Error(), "SHA1") }},
		{"RSA 2048", Cert{Names: names, Key: KeyRSA2048}, fine},
		{"RSA 1024", Cert{Names: names, Key: KeyRSA1024}, fine}, // crypto/x509 has no floor
		{"P-224", Cert{Names: names, Key: KeyP224}, fine},
	} {
		t.Run(c.what, func(t *testing.T) {
			cert, err := ca.Issue(c.cert)
			if err != nil {
				t.Fatal(err)
			}
			state, err := handshake(t, cert)
			if err != nil {
				t.Fatal(err)
			}
			inter := x509.NewCertPool()
			for _, ic := range state.PeerCertificates[1:] {
				inter.AddCert(ic)
			}
			leaf := state.PeerCertificates[0]
			_, err = leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), Intermediates: inter, DNSName: name})
			if !c.want(err) {
				t.Errorf("verify: %v", err)
			}
			if k, ok := leaf.PublicKey.(*rsa.PublicKey); ok && c.cert.Key == KeyRSA1024 && k.N.BitLen() != 1024 {
				t.Errorf("key of %d bits", k.N.BitLen())
			}
		})
	}
}

func TestUnparseableCertificate(t *testing.T) {
	ca, err := NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(Cert{Names: []string{"mx1.example.test"}, Unparseable: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, cert); err == nil || !strings.Contains(err.Error(), "negative serial") {
		t.Errorf("got %v", err)
	}
}
