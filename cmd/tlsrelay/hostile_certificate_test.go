package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"

	"tlsrelay/relay/relaytest"
)

// certUntil is a certificate with a notAfter that x509.CreateCertificate would not
// write. The signature breaks, but an opportunistic sender does not look.
func certUntil(t testing.TB, ca *relaytest.CA, notAfter string) tls.Certificate {
	t.Helper()
	cert, err := ca.Issue(relaytest.Cert{Names: []string{"mx.clock.test"}, SelfSigned: true})
	if err != nil {
		t.Fatal(err)
	}
	type tbs struct {
		Version    int `asn1:"optional,explicit,default:0,tag:0"`
		Serial     *big.Int
		Algorithm  pkix.AlgorithmIdentifier
		Issuer     asn1.RawValue
		Validity   struct{ NotBefore, NotAfter asn1.RawValue }
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Extensions []pkix.Extension `asn1:"omitempty,optional,explicit,tag:3"`
	}
	var c struct {
		TBS       tbs
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(cert.Certificate[0], &c); err != nil {
		t.Fatal(err)
	}
	c.TBS.Validity.NotAfter = asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte(notAfter)}
	der, err := asn1.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	cert.Certificate[0] = der
	return cert
}

// A stranger's certificate may say anything. It costs neither the outcome of the
// attempt nor the worker that made it.
func TestCertificateWithAStrangeDate(t *testing.T) {
	for _, notAfter := range []string{"20500101000000+2400", "00000101000000+0100", "99991231235959-0100"} {
		t.Run(notAfter, func(t *testing.T) {
			r := newRig(t)
			h := r.world.Host(t, "mx.clock.test", relaytest.Script{TLS: relaytest.TLS{
				Config: &tls.Config{Certificates: []tls.Certificate{certUntil(t, r.world.CA, notAfter)}},
			}})
			receiver, _ := r.webhook()
			r.submit("app@sender.test", "a@clock.test")
			h.Await(t, 1)
			r.event(receiver, "a@clock.test", "delivered")
		})
	}
}
