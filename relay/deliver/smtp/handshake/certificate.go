package handshake

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
)

// Findings are the findings on a certificate that do not depend on the
// message: everything but the name. Each check is made on its own, because
// x509.Verify stops at the first that fails.
type Findings struct {
	leaf *x509.Certificate

	untrusted, expired, notYet, weakKey, weakSig, usage bool

	subject, issuer, sha256 string
}

// The shortest keys of a valid certificate. RFC 9325 §4.5 wants RSA keys of 2048 bits,
// and an EC key of 224 bits is as strong; Go itself refuses only RSA below 1024 bits.
const (
	minRSABits = 2048
	minECBits  = 224
)

// Examine makes every check on a presented chain, leaf first.
func Examine(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) Findings {
	if len(chain) == 0 {
		return Findings{untrusted: true}
	}
	leaf := chain[0]
	sum := sha256.Sum256(leaf.Raw)
	f := Findings{
		leaf:    leaf,
		subject: legible(leaf.Subject.String()),
		issuer:  legible(leaf.Issuer.String()),
		sha256:  hex.EncodeToString(sum[:]),
	}
	opts := x509.VerifyOptions{
		Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	verified, err := leaf.Verify(opts)
	if err != nil {
		verified = f.untangle(chain, opts)
	}
	f.weakKey = weakKeys(leaf, verified)
	return f
}

// maxName bounds what is kept of a name in a certificate, in octets.
const maxName = 1024

// legible makes a stranger's name safe for logs and events.
func legible(s string) string { return events.Printable(events.Clip(s, maxName)) }

// untangle finds out which of the checks failed. It verifies the chain again
// at a time when the leaf was valid and for any usage, so that an old
// certificate from a known authority is expired and not also untrusted.
func (f *Findings) untangle(chain []*x509.Certificate, opts x509.VerifyOptions) [][]*x509.Certificate {
	leaf, now := chain[0], opts.CurrentTime
	f.expired, f.notYet = now.After(leaf.NotAfter), now.Before(leaf.NotBefore)
	switch {
	case f.expired:
		opts.CurrentTime = leaf.NotAfter
	case f.notYet:
		opts.CurrentTime = leaf.NotBefore
	}
	usages := opts.KeyUsages
	opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	verified, err := leaf.Verify(opts)
	if err != nil {
		f.blame(err, chain, opts.CurrentTime)
		f.usage = wrongUsage(leaf)
		return nil
	}
	opts.KeyUsages = usages
	_, err = leaf.Verify(opts)
	f.usage = err != nil
	return verified
}

// blame reads why no chain to a root could be built.
func (f *Findings) blame(err error, chain []*x509.Certificate, at time.Time) {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		// An intermediate or the root. One reason stands for both ends.
		early := at.Before(invalid.Cert.NotBefore)
		f.notYet, f.expired = f.notYet || early, f.expired || !early
	case strings.Contains(err.Error(), "insecure algorithm"):
		// A known authority signed it, with SHA-1 or MD5: x509 names the
		// algorithm only as a hint inside UnknownAuthorityError.
		f.weakSig = true
	default:
		f.untrusted = true
		f.weakSig = slices.ContainsFunc(chain, weaklySigned)
	}
}

// weaklySigned reports a SHA-1 or older signature that matters: a root's own
// signature proves nothing.
func weaklySigned(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return string(c.RawIssuer) != string(c.RawSubject)
	}
	return false
}

// wrongUsage reports a leaf that is not meant for servers.
func wrongUsage(leaf *x509.Certificate) bool {
	if len(leaf.ExtKeyUsage)+len(leaf.UnknownExtKeyUsage) == 0 {
		return false
	}
	return !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) &&
		!slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny)
}

// weakKeys reports whether the leaf, or every way from it to a root, has a
// short key. The root's own is the operator's choice.
func weakKeys(leaf *x509.Certificate, verified [][]*x509.Certificate) bool {
	if weakKey(leaf) {
		return true
	}
	weak := func(way []*x509.Certificate) bool {
		return len(way) > 2 && slices.ContainsFunc(way[1:len(way)-1], weakKey)
	}
	return len(verified) > 0 && !slices.ContainsFunc(verified, func(way []*x509.Certificate) bool { return !weak(way) })
}

func weakKey(c *x509.Certificate) bool {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() < minRSABits
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize < minECBits
	}
	return false
}

// For completes the findings for one message: whether the certificate
// carries one of its names, and whether it is still in date.
func (f *Findings) For(names []string, now time.Time) policy.Certificate {
	c := policy.Certificate{Subject: f.subject, Issuer: f.issuer, SHA256: f.sha256}
	expired := f.expired
	if f.leaf != nil {
		c.NotAfter = recordable(f.leaf.NotAfter)
		c.Matched = f.match(names)
		expired = expired || now.After(f.leaf.NotAfter)
	}
	for _, x := range [...]struct {
		found  bool
		reason events.Reason
	}{
		{f.untrusted, events.CertUntrusted},
		{expired, events.CertExpired},
		{f.notYet, events.CertNotYetValid},
		{c.Matched == "", events.CertName},
		{f.weakKey, events.CertWeakKey},
		{f.weakSig, events.CertWeakSig},
		{f.usage, events.CertUsage},
	} {
		if x.found {
			c.Faults = append(c.Faults, x.reason)
		}
	}
	return c
}

// recordable gives a date in UTC, or the zero time for one that RFC 3339 cannot
// write. A stranger makes the certificate, and crypto/x509 accepts a zone of 24 hours
// in it; a date that cannot be recorded must not keep the outcome from being stored.
func recordable(t time.Time) time.Time {
	if t = t.UTC(); t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}

// match finds the first reference name that the certificate carries: SAN
// only, wildcards as the whole left-most label (RFC 9525 §6). A name that is
// an IP address matches an IP SAN only.
func (f *Findings) match(names []string) string {
	for _, n := range names {
		if n != "" && f.leaf.VerifyHostname(n) == nil {
			return n
		}
	}
	return ""
}
