package configs

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"tlsrelay/policy/domain"
)

// name gives the relay the name of the machine if the configuration has none.
func (l *loader) name() {
	if l.config.Hostname != "" {
		return
	}
	l.config.Hostname = "localhost"
	name, err := os.Hostname()
	if err != nil {
		return
	}
	if _, err := domain.Parse(name); err == nil {
		l.config.Hostname = name
	}
}

// warn reports what is possible and likely wrong, at the place it came from.
func (l *loader) warn(now time.Time) {
	c := &l.config
	l.warnOfName(c.Hostname)
	for _, n := range c.Submission.TrustedNetworks {
		// The widest networks that one organisation has are 10.0.0.0/8 and fc00::/7.
		wide := n.Addr().Is4() && n.Bits() < 8 || n.Addr().Is6() && n.Bits() < 7
		l.caution(!wide, "submission.trusted_networks", "%s is the Internet: whoever can connect may send mail, without a key", n)
	}
	for _, addr := range c.Submission.Listen {
		l.caution(!c.Submission.AllowPlaintextAuth || isLoopback(addr), "submission.allow_plaintext_auth",
			"API keys may travel in clear to %s", addr)
	}
	l.caution(c.API.CertFile != "" || isLoopback(c.API.Listen), "api.listen",
		"is beyond loopback without TLS (api.cert_file): API keys travel in clear")
	l.caution(c.Admin.CertFile != "" || isLoopback(c.Admin.Listen), "admin.listen",
		"is beyond loopback without TLS (admin.cert_file): the token travels in clear")
	for section, chain := range l.chains {
		l.warnOfDates(section+".cert_file", chain, now)
	}
	l.warnOfCertNames(c)
}

// caution is check for a warning.
func (l *loader) caution(ok bool, key, text string, args ...any) {
	if ok || l.broken[key] {
		return
	}
	f := l.place(key, key)
	f.Text = fmt.Sprintf(text, args...)
	l.warnings = append(l.warnings, f)
}

const literalWords = "EHLO gives an address literal instead, and hosts that want a name refuse it"

func (l *loader) warnOfName(hostname string) {
	const key = "hostname"
	name, err := domain.Parse(hostname)
	if err != nil {
		return // a fault already
	}
	set := l.origin[key].File != defaultsName
	local := strings.HasSuffix(name.String(), ".localdomain") || strings.HasSuffix(name.String(), ".localhost")
	switch {
	case !set && !name.Qualified():
		l.caution(false, key, "is not set, and the machine's name %q is not fully qualified: %s", hostname, literalWords)
	case !name.Qualified():
		l.caution(false, key, "%q is not a fully qualified name: %s", hostname, literalWords)
	case local:
		l.caution(false, key, "%q is a name for inside one machine: hosts that look it up refuse it", hostname)
	}
}

func (l *loader) warnOfDates(key string, chain []*x509.Certificate, now time.Time) {
	for _, c := range chain {
		l.caution(!now.After(c.NotAfter), key, "the certificate of %q has expired on %s", c.Subject, day(c.NotAfter))
		l.caution(!now.Before(c.NotBefore), key, "the certificate of %q is not valid before %s", c.Subject, day(c.NotBefore))
	}
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// warnOfCertNames compares the names in certificates with those that clients can know: the
// hostname for submission; for HTTP any name but one that only the machine itself uses.
func (l *loader) warnOfCertNames(c *Config) {
	for section, chain := range l.chains {
		key, leaf := section+".cert_file", chain[0]
		names := slices.Clone(leaf.DNSNames)
		for _, ip := range leaf.IPAddresses {
			names = append(names, ip.String())
		}
		name, err := domain.Parse(c.Hostname)
		switch listen := map[string]string{"api": c.API.Listen, "admin": c.Admin.Listen}[section]; {
		case len(names) == 0:
			l.caution(false, key, "the certificate names no host: clients that look at it refuse it")
		case section == "submission" && err == nil && name.Qualified():
			l.caution(leaf.VerifyHostname(name.String()) == nil, key, "the certificate is for %s and not for %s, the hostname",
				strings.Join(names, ", "), name)
		case listen != "" && !isLoopback(listen):
			l.caution(slices.ContainsFunc(names, func(n string) bool { return !isLoopback(net.JoinHostPort(n, "1")) }),
				key, "the certificate is for %s alone, and %s is beyond it", strings.Join(names, ", "), listen)
		}
	}
}

// bound is one address to listen on, and the key it comes from.
type bound struct{ key, addr string }

// collisions reports two listeners that want the same address.
func (l *loader) collisions(c *Config) {
	var all []bound
	for _, a := range c.Submission.Listen {
		all = append(all, bound{"submission.listen", a})
	}
	for _, a := range c.Submission.ListenTLS {
		all = append(all, bound{"submission.listen_tls", a})
	}
	all = append(all, bound{"api.listen", c.API.Listen}, bound{"admin.listen", c.Admin.Listen})
	for i, b := range all {
		for _, a := range all[:i] {
			l.beside(!collide(a.addr, b.addr), b.key, a.key, "%q is taken: %s has %q", b.addr, a.key, a.addr)
		}
	}
}

// collide reports whether two listeners cannot both have these addresses. A listener on
// all addresses of the machine takes its port on each of them.
func collide(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	x, y := listenHost(hostA), listenHost(hostB)
	return x == y || x == "" || y == ""
}

// listenHost gives a host to listen on in one form, "" for all addresses.
func listenHost(host string) string {
	if host == "localhost" {
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return strings.ToLower(host)
	case ip.IsUnspecified():
		return ""
	}
	return ip.Unmap().String()
}
