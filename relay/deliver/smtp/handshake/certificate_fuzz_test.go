package handshake

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

// demanding is a sender that demands a valid certificate.
var demanding = policy.Sender{Account: policy.Settings{RequireValidCert: true}}

// certificateReasons are all that may be found wrong with a certificate.
var certificateReasons = []events.Reason{
	events.CertUntrusted, events.CertExpired, events.CertNotYetValid, events.CertName,
	events.CertWeakKey, events.CertWeakSig, events.CertUsage,
}

// FuzzCertificate shows any octets as a host's chain. What crypto/x509 reads of
// them is judged without a panic, can be recorded and shown, and satisfies
// require_valid_cert exactly where crypto/x509, asked in one question, has nothing
// against it and no key is short.
func FuzzCertificate(f *testing.F) {
	ca, err := relaytest.NewCA()
	if err != nil {
		f.Fatal(err)
	}
	roots := ca.Pool()
	for _, c := range []relaytest.Cert{
		{}, {Intermediate: true}, {MissingIntermediate: true}, {SelfSigned: true}, {UnknownCA: true}, {Expired: true},
		{NotYetValid: true}, {WrongUsage: true}, {SHA1: true}, {Key: relaytest.KeyRSA1024}, {Key: relaytest.KeyP224}, {Unparseable: true},
	} {
		c.Names = []string{"mx.a.test", "*.b.test", "192.0.2.1"}
		cert, err := ca.Issue(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(bytes.Join(cert.Certificate, nil), "mx.a.test")
		f.Add(bytes.Join(cert.Certificate, nil), "mx.b.test")
	}
	f.Fuzz(func(t *testing.T, der []byte, name string) {
		chain, err := x509.ParseCertificates(der)
		if err != nil || len(chain) == 0 {
			return
		}
		checkCertificate(t, roots, chain, name)
	})
}

// FuzzSignedCertificate has a trusted authority sign a subject, alternative names
// and an extended key usage of any octets: what names match and what is shown of
// them is then all that stands between a host and a good certificate.
func FuzzSignedCertificate(f *testing.F) {
	roots, sign := authority(f)
	names := func(names ...any) []byte {
		var values []asn1.RawValue
		for _, n := range names {
			switch n := n.(type) {
			case string: // dNSName (RFC 5280 §4.2.1.6)
				values = append(values, asn1.RawValue{Tag: 2, Class: asn1.ClassContextSpecific, Bytes: []byte(n)})
			case net.IP: // iPAddress
				values = append(values, asn1.RawValue{Tag: 7, Class: asn1.ClassContextSpecific, Bytes: n})
			}
		}
		der, err := asn1.Marshal(values)
		if err != nil {
			f.Fatal(err)
		}
		return der
	}
	subject := func(cn string) []byte {
		der, err := asn1.Marshal(pkix.Name{CommonName: cn, Organization: []string{"evil\r\n\x1b[2J\u202e"}}.ToRDNSequence())
		if err != nil {
			f.Fatal(err)
		}
		return der
	}
	for _, san := range [][]byte{
		nil, names(), names("mx.a.test"), names("*.a.test"), names("MX.A.TEST."), names("*"), names("*.test", "m*.a.test"), names("mx.a.test\x00.evil.test"),
		names(net.IP{192, 0, 2, 1}), names("192.0.2.1"), names(net.ParseIP("2001:db8::1"), "xn--bcher-kva.test"),
	} {
		for _, name := range []string{"mx.a.test", "192.0.2.1", "2001:db8::1", "xn--bcher-kva.test"} {
			f.Add(subject(name), san, []byte(nil), name)
		}
	}
	f.Add(subject(strings.Repeat("long", 1000)), names("mx.a.test"), []byte{0x30, 0}, "mx.a.test")
	f.Fuzz(func(t *testing.T, subject, san, usage []byte, name string) {
		now := time.Now()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), RawSubject: subject,
		}
		if san != nil {
			template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san})
		}
		if len(usage) > 0 {
			template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Value: usage})
		}
		if leaf, err := sign(template); err == nil {
			checkCertificate(t, roots, []*x509.Certificate{leaf}, name)
		}
	})
}

// authority is a root that signs whatever it is given, and the pool that trusts it.
func authority(f *testing.F) (*x509.CertPool, func(*x509.Certificate) (*x509.Certificate, error)) {
	f.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	sign := func(template, by *x509.Certificate) (*x509.Certificate, error) {
		der, err := x509.CreateCertificate(rand.Reader, template, by, key.Public(), key)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	root, err := sign(template, template)
	if err != nil {
		f.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	return roots, func(leaf *x509.Certificate) (*x509.Certificate, error) { return sign(leaf, root) }
}

// checkCertificate holds the findings on a chain against what crypto/x509 says of
// it in one question.
func checkCertificate(t *testing.T, roots *x509.CertPool, chain []*x509.Certificate, name string) {
	now, names := time.Now(), []string{name, "a.test"}
	facts := Examine(chain, roots, now)
	c := facts.For(names, now)
	for i, reason := range c.Faults {
		if !slices.Contains(certificateReasons, reason) || slices.Contains(c.Faults[:i], reason) {
			t.Fatalf("faults %q", c.Faults)
		}
	}
	if c.Matched != "" && (!slices.Contains(names, c.Matched) || !carries(chain[0], c.Matched)) {
		t.Fatalf("%q matched %q and %v", c.Matched, chain[0].DNSNames, chain[0].IPAddresses)
	}
	matched := slices.ContainsFunc(names, func(n string) bool { return n != "" && chain[0].VerifyHostname(n) == nil })
	if sound := verifies(roots, chain, now) && matched && !facts.weakKey; c.Valid() != sound {
		t.Fatalf("valid %v, though crypto/x509 says %v: %q", c.Valid(), sound, c.Faults)
	}
	for _, s := range []string{c.Subject, c.Issuer} {
		if len(s) > maxName || strings.ContainsFunc(s, events.Hidden) {
			t.Fatalf("not fit to be shown: %q", s)
		}
	}
	seen := policy.Observed{Stage: policy.StageReady, StartTLS: policy.Offered, TLS: &policy.Session{Version: policy.TLS13, Cert: c}}
	verdict := demanding.Demands().On(policy.Facts{}).Judge(seen)
	if (verdict.Action == policy.Proceed) != c.Valid() {
		t.Fatalf("%+v of a certificate with the faults %q", verdict, c.Faults)
	}
	recordable := relay.Delivery{Last: &relay.Attempt{At: now, Hosts: []relay.HostEvidence{{TLS: seen.TLS, Verdict: verdict}}}}
	text, err := recordable.AppendJSON(nil)
	if err != nil || !json.Valid(text) {
		t.Fatalf("cannot be recorded: %v %s", err, text)
	}
}

// verifies asks crypto/x509 everything at once but the name.
func verifies(roots *x509.CertPool, chain []*x509.Certificate, now time.Time) bool {
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(opts)
	return err == nil
}

// carries matches a name as RFC 9525 §6.3 says, and knows no common name.
func carries(c *x509.Certificate, name string) bool {
	if ip := net.ParseIP(strings.Trim(name, "[]")); ip != nil {
		return slices.ContainsFunc(c.IPAddresses, ip.Equal)
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	return slices.ContainsFunc(c.DNSNames, func(pattern string) bool {
		pattern = strings.ToLower(strings.TrimSuffix(pattern, "."))
		if _, parent, ok := strings.Cut(name, "."); ok && pattern == "*."+parent {
			return true
		}
		return pattern == name
	})
}
