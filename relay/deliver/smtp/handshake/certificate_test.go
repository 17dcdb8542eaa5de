package handshake

import (
	"crypto/x509"
	"encoding/json"
	"testing"
	"time"

	"tlsrelay/relay/relaytest"
)

// Every date that crypto/x509 takes from a stranger gives evidence that can be
// recorded.
func TestStrangeDateOfACertificate(t *testing.T) {
	ca, err := relaytest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(relaytest.Cert{Names: []string{"mx.a.test"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, date := range []string{"20500101000000+2400", "20500101000000-2400", "00000101000000+0100", "99991231235959-0100", "20500101000000Z"} {
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		// As crypto/x509 reads a GeneralizedTime.
		if leaf.NotAfter, err = time.Parse("20060102150405Z0700", date); err != nil {
			t.Fatal(err)
		}
		f := Examine([]*x509.Certificate{leaf}, ca.Pool(), time.Now())
		if _, err := json.Marshal(f.For([]string{"mx.a.test"}, time.Now())); err != nil {
			t.Errorf("%s: %v", date, err)
		}
	}
}
