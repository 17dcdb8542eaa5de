package configs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"

	"tlsrelay/policy"
	"tlsrelay/policy/domain"
)

// validate reports every impossible value at the place it came from.
func (l *loader) validate() {
	c := &l.config
	l.general(c)
	l.submission(c.Submission)
	l.listeners(c)
	l.delivery(c.Delivery)
	l.webhooks(c.Webhooks)
}

// check reports a fault at key unless ok holds.
func (l *loader) check(ok bool, key, text string, args ...any) {
	l.beside(ok, key, key, text, args...)
}

// beside is check for a key that is wrong only together with another one. If key has its
// default, the fault is at the line of the other key.
func (l *loader) beside(ok bool, key, other, text string, args ...any) {
	if ok || l.broken[key] || l.broken[other] {
		return
	}
	f := l.place(key, other)
	f.Text = fmt.Sprintf(text, args...)
	l.fault(f)
}

// place says where key was set, or where it has its default, other.
func (l *loader) place(key, other string) Fault {
	f := l.origin[key]
	if f.File == defaultsName {
		f = l.origin[other]
		f.Key = key
	}
	if f.File == defaultsName {
		f.File, f.Line = "", 0 // and not in the operator's file
	}
	return f
}

func (l *loader) positive(key string, d time.Duration) {
	l.check(d > 0, key, "must be longer than zero")
}

func (l *loader) general(c *Config) {
	if c.Hostname != "" {
		_, err := domain.Parse(c.Hostname)
		l.check(err == nil, "hostname", "%q is not a domain name", c.Hostname)
	}
	l.check(c.DataDir != "", "data_dir", "must not be empty")
	_, err := zapcore.ParseLevel(c.Log.Level)
	l.check(err == nil, "log.level", "must be debug, info, warn or error")
	l.check(c.Log.Format == "json" || c.Log.Format == "console", "log.format", "must be json or console")
	l.positive("retention", c.Retention)
}

func (l *loader) submission(s Submission) {
	l.check(len(s.Listen)+len(s.ListenTLS) > 0, "submission.listen", "no address to listen on")
	l.addresses("submission.listen", s.Listen)
	l.addresses("submission.listen_tls", s.ListenTLS)
	l.pair("submission", s.CertFile, s.KeyFile)
	l.check(s.BareNewlines == "normalize" || s.BareNewlines == "refuse", "submission.bare_newlines", "must be normalize or refuse")
	l.check(s.MaxMessageBytes >= 1024, "submission.max_message_bytes", "must be at least 1024")
	// RFC 5321 §4.5.3.1.8: a server takes at least 100 recipients. Each may be
	// a delivery of its own, numbered in 16 bits (relay.DeliveryKey).
	l.check(s.MaxRecipients >= 100 && s.MaxRecipients <= 1<<16, "submission.max_recipients", "must be 100 to 65536")
	l.check(s.MaxConnections > 0, "submission.max_connections", "must be at least 1")
	l.check(s.MaxConnectionsPerIP >= 0, "submission.max_connections_per_ip", "must not be negative")
	l.check(s.MaxStrangersPerIP >= 0, "submission.max_strangers_per_ip", "must not be negative")
	l.positive("submission.login_timeout", s.LoginTimeout)
	l.check(s.MaxWaiting >= 0, "submission.max_waiting_per_account", "must not be negative")
	l.check(s.MaxDestinations >= 0, "submission.max_destinations_per_account", "must not be negative")
	l.check(s.AuthFailuresPerMinute > 0, "submission.auth_failures_per_minute", "must be at least 1")
	l.positive("submission.idle_timeout", s.IdleTimeout)
}

func (l *loader) listeners(c *Config) {
	l.addresses("api.listen", []string{c.API.Listen})
	l.pair("api", c.API.CertFile, c.API.KeyFile)
	l.check(c.API.RequestsPerMinute >= 0, "api.requests_per_minute", "must not be negative")
	l.addresses("admin.listen", []string{c.Admin.Listen})
	l.pair("admin", c.Admin.CertFile, c.Admin.KeyFile)
	for _, h := range c.Admin.Hosts {
		_, err := domain.Parse(h)
		_, ipErr := netip.ParseAddr(h)
		l.check(err == nil || ipErr == nil, "admin.hosts", "%q is neither a host name nor an address, without a port", h)
	}
	l.collisions(c)
	l.beside(c.Admin.Token != "" || isLoopback(c.Admin.Listen), "admin.token", "admin.listen", "must be set to listen beyond loopback")
}

func (l *loader) delivery(d Delivery) {
	l.check(d.Port > 0 && d.Port < 1<<16, "delivery.port", "must be 1 to 65535")
	if d.Resolver != "" {
		l.addresses("delivery.resolver", []string{d.Resolver})
	}
	l.check(d.DNSSEC == "auto" || d.DNSSEC == "trust" || d.DNSSEC == "off", "delivery.dnssec", "must be auto, trust or off")
	if text := l.readable("delivery.root_ca_file", d.RootCAFile); text != nil {
		l.certificates("delivery.root_ca_file", d.RootCAFile, text)
	}
	for name, target := range d.Routes {
		_, err := domain.Parse(name)
		l.check(name == "*" || err == nil, "delivery.routes", "%q is neither a domain name nor *", name)
		l.check(isHostPort(target), "delivery.routes", "%q is not host:port", target)
	}
	for name, words := range d.IgnoreKeywords {
		_, err := domain.Parse(strings.TrimPrefix(name, "*."))
		l.check(name == "*" || err == nil, "delivery.ignore_keywords", "%q is neither a host name nor *.domain nor *", name)
		for _, w := range words {
			l.check(isKeyword(w), "delivery.ignore_keywords", "%q is no EHLO keyword", w)
			// An account may demand these, so they cannot be ignored.
			secure := strings.EqualFold(w, "STARTTLS") || strings.EqualFold(w, "REQUIRETLS")
			l.check(!secure, "delivery.ignore_keywords", "%s cannot be ignored", strings.ToUpper(w))
		}
	}
	v := d.OpportunisticMinVersion
	l.check(v >= policy.TLS10 && v <= policy.TLS13, "delivery.opportunistic_min_version", "must be 1.0, 1.1, 1.2 or 1.3")
	l.check(d.ViolationGuardDomains >= 0, "delivery.violation_guard_domains", "must not be negative")
	for key, t := range map[string]time.Duration{
		"violation_guard_within": d.ViolationGuardWithin, "connect_timeout": d.ConnectTimeout,
		"handshake_timeout": d.HandshakeTimeout, "command_timeout": d.CommandTimeout,
		"retry_after": d.RetryAfter, "lifetime": d.Lifetime, "idle_timeout": d.IdleTimeout,
		"policy_window": d.PolicyWindow, "policy_confirm_after": d.PolicyConfirmAfter,
	} {
		l.positive("delivery."+key, t)
	}
	l.beside(d.RetryMax >= d.RetryAfter, "delivery.retry_max", "delivery.retry_after", "must not be shorter than retry_after")
	for key, n := range map[string]int{
		"max_connections": d.MaxConnections, "max_connections_per_destination": d.MaxConnectionsPerDestination,
		"max_recipients_per_transaction": d.MaxRecipientsPerTransaction,
	} {
		l.check(n > 0, "delivery."+key, "must be at least 1")
	}
	l.check(d.MaxMessagesPerConnection >= 0, "delivery.max_messages_per_connection", "must not be negative")
}

// isKeyword reports whether w could stand in a reply to EHLO (RFC 5321 §4.1.1.1).
func isKeyword(w string) bool {
	for i := range len(w) {
		c := w[i]
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' && i > 0) {
			return false
		}
	}
	return w != ""
}

func (l *loader) webhooks(w Webhooks) {
	l.positive("webhooks.flush_interval", w.FlushInterval)
	l.check(w.FlushBytes > 0, "webhooks.flush_bytes", "must be at least 1")
	l.positive("webhooks.retry_after", w.RetryAfter)
	l.beside(w.RetryMax >= w.RetryAfter, "webhooks.retry_max", "webhooks.retry_after", "must not be shorter than retry_after")
	l.positive("webhooks.retry_for", w.RetryFor)
}

func (l *loader) addresses(key string, list []string) {
	for _, a := range list {
		l.check(isHostPort(a), key, "%q is not host:port", a)
	}
}

// pair checks that a certificate comes with its key.
func (l *loader) pair(section, cert, key string) {
	certFile, keyFile := section+".cert_file", section+".key_file"
	l.beside(cert != "" || key == "", certFile, keyFile, "must be set together with key_file")
	l.beside(key != "" || cert == "", keyFile, certFile, "must be set together with cert_file")
	chain, secret := l.readable(certFile, cert), l.readable(keyFile, key)
	if chain == nil || secret == nil {
		return
	}
	if !l.certificates(certFile, cert, chain) {
		return
	}
	both, err := tls.X509KeyPair(chain, secret)
	l.check(err == nil, keyFile, "%s: holds no private key for %s", key, cert)
	if err != nil {
		return
	}
	for _, der := range both.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil {
			l.chains[section] = append(l.chains[section], c)
		}
	}
}

// certificates checks that there is a certificate in the text of a file.
func (l *loader) certificates(key, file string, text []byte) bool {
	found := x509.NewCertPool().AppendCertsFromPEM(text)
	l.check(found, key, "%s: holds no certificate in PEM", file)
	return found
}

// readable returns the text of a file. A named file that cannot be read is a fault.
func (l *loader) readable(key, file string) []byte {
	if file == "" {
		return nil
	}
	text, err := os.ReadFile(file)
	l.check(err == nil, key, "%s: no such file, or not readable", file)
	if err != nil {
		return nil
	}
	return text
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < 0 || n >= 1<<16 {
		return false
	}
	if host == "" {
		return true // all addresses of the machine
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	_, err = domain.Parse(host)
	return err == nil
}

func isLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return true // reported as a malformed address already
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
