package configs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// warned gives the warnings of a configuration that can be used, a line each.
func warned(t *testing.T, text string, env ...string) string {
	t.Helper()
	path := write(t, text)
	_, warnings, err := Inspect(path, env)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(warnings.Error(), path, "F")
}

func TestWarnings(t *testing.T) {
	const good = "hostname: relay.example\n"
	for _, c := range []struct {
		text string
		env  []string
		want string
	}{
		{good, nil, ""},
		{"hostname: relay\n", nil, `F:1: hostname: "relay" is not a fully qualified name: ` + literalWords},
		{"hostname: localhost.localdomain\n", nil, `F:1: hostname: "localhost.localdomain" is a name for inside one machine: hosts that look it up refuse it`},
		{"", []string{"TLSRELAY_HOSTNAME=mx"}, `TLSRELAY_HOSTNAME: "mx" is not a fully qualified name: ` + literalWords},
		{good + `submission:
  listen: ["127.0.0.1:2525", "192.0.2.1:587", ":26"]
  allow_plaintext_auth: true
  trusted_networks: [10.0.0.0/8, 127.0.0.0/8, fc00::/7, 0.0.0.0/0, "::/0", 128.0.0.0/1, "2000::/3"]
api:
  listen: 0.0.0.0:8025
admin:
  token: x
  listen: "[::]:8026"
`, nil, `F:4: submission.allow_plaintext_auth: API keys may travel in clear to 192.0.2.1:587
F:4: submission.allow_plaintext_auth: API keys may travel in clear to :26
F:5: submission.trusted_networks: 0.0.0.0/0 is the Internet: whoever can connect may send mail, without a key
F:5: submission.trusted_networks: ::/0 is the Internet: whoever can connect may send mail, without a key
F:5: submission.trusted_networks: 128.0.0.0/1 is the Internet: whoever can connect may send mail, without a key
F:5: submission.trusted_networks: 2000::/3 is the Internet: whoever can connect may send mail, without a key
F:7: api.listen: is beyond loopback without TLS (api.cert_file): API keys travel in clear
F:10: admin.listen: is beyond loopback without TLS (admin.cert_file): the token travels in clear`},
		{good, []string{"TLSRELAY_API_LISTEN=192.0.2.1:443"}, "TLSRELAY_API_LISTEN: is beyond loopback without TLS (api.cert_file): API keys travel in clear"},
		{good, []string{"TLSRELAY_API_LISTEN=localhost:443", "TLSRELAY_ADMIN_LISTEN=[::1]:80"}, ""},
	} {
		if got := warned(t, c.text, c.env...); got != c.want {
			t.Errorf("%s%v: got\n%s\nwant\n%s", c.text, c.env, got, c.want)
		}
	}
}

// Faults do not hide warnings: all that is to be said is said at once.
func TestWarningsBesideFaults(t *testing.T) {
	_, warnings, err := Inspect(write(t, "hostname: relay\ncolour: blue\n"), []string{"TLSRELAY_HOSTNAM=x"})
	if err == nil || len(warnings) != 2 {
		t.Errorf("%v beside %v", warnings, err)
	}
}

// The machine's name is the relay's, where none is set.
func TestMachinesName(t *testing.T) {
	c, warnings, err := Inspect("", nil)
	if err != nil || c.Hostname == "" {
		t.Fatalf("%q, %v", c.Hostname, err)
	}
	name, err := os.Hostname()
	if err == nil && c.Hostname != name && c.Hostname != "localhost" {
		t.Errorf("%q on %q", c.Hostname, name)
	}
	if said := strings.Contains(warnings.Error(), "the machine's name"); said != !strings.Contains(c.Hostname, ".") {
		t.Errorf("%q: %s", c.Hostname, warnings)
	}
}

func TestUnknownVariables(t *testing.T) {
	for name, nearest := range map[string]string{
		"TLSRELAY_DELIVRY_PORT":         "TLSRELAY_DELIVERY_PORT",
		"TLSRELAY_RESOLVER":             "TLSRELAY_DELIVERY_RESOLVER",
		"TLSRELAY_DELIVERY_RESOLVER_":   "TLSRELAY_DELIVERY_RESOLVER",
		"TLSRELAY_DATADIR":              "TLSRELAY_DATA_DIR",
		"TLSRELAY_Hostname":             "TLSRELAY_HOSTNAME",
		"TLSRELAY_ADMIN_TOKEN_FIEL":     "TLSRELAY_ADMIN_TOKEN_FILE",
		"TLSRELAY_BOOTSTRAPKEY":         "TLSRELAY_BOOTSTRAP_KEY",
		"TLSRELAY_SUBMISSION_CERT":      "TLSRELAY_SUBMISSION_CERT_FILE",
		"TLSRELAY_LOG_LEVL":             "TLSRELAY_LOG_LEVEL",
		"TLSRELAY_DELIVERY_LIFE_TIME":   "TLSRELAY_DELIVERY_LIFETIME",
		"TLSRELAY_WEBHOOK_RETRY_FOR":    "TLSRELAY_WEBHOOKS_RETRY_FOR",
		"TLSRELAY_SUBMISSION_LISTENTLS": "TLSRELAY_SUBMISSION_LISTEN_TLS",
	} {
		got := warned(t, "hostname: relay.example\n", name+"=s3cret")
		if want := name + ": sets nothing: there is no such key; " + nearest + " is the nearest"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	got := warned(t, "hostname: relay.example\n", "TLSRELAY_DELIVERY_ROUTES=example.com=127.0.0.1:25")
	if !strings.HasPrefix(got, "TLSRELAY_DELIVERY_ROUTES: sets nothing") {
		t.Errorf("got %s", got)
	}
	// What is known, and what Kubernetes makes of services called tlsrelay and
	// tlsrelay-admin.
	for _, env := range []string{
		"TLSRELAY_ADMIN_URL=http://127.0.0.1:1", "TLSRELAY_BOOTSTRAP_KEY=x", "TLSRELAY_BOOTSTRAP_KEY_FILE=x", "TLSRELAY_STORE=",
		"TLSRELAY_DELIVERY_PORT=26", "OTHER=1", "TLSRELAY=1",
		"TLSRELAY_PORT=tcp://10.0.0.1:25", "TLSRELAY_SERVICE_HOST=10.0.0.1", "TLSRELAY_SERVICE_PORT=25", "TLSRELAY_SERVICE_PORT_SMTP=25",
		"TLSRELAY_PORT_25_TCP=tcp://10.0.0.1:25", "TLSRELAY_PORT_25_TCP_ADDR=10.0.0.1", "TLSRELAY_PORT_25_TCP_PROTO=tcp",
		"TLSRELAY_ADMIN_PORT=tcp://10.0.0.2:8026", "TLSRELAY_ADMIN_PORT_8026_TCP_PORT=8026", "TLSRELAY_ADMIN_SERVICE_HOST=10.0.0.2",
	} {
		if got := warned(t, "hostname: relay.example\n", env); got != "" {
			t.Errorf("%s: %s", env, got)
		}
	}
}

// Two listeners on one address cannot both be had.
func TestOneAddressForTwo(t *testing.T) {
	for _, c := range []struct{ submission, tls, api, admin, want string }{
		{"127.0.0.1:25", "127.0.0.1:465", "127.0.0.1:80", "127.0.0.1:81", ""},
		{"127.0.0.1:25", "", "127.0.0.1:25", "127.0.0.1:81", `TLSRELAY_API_LISTEN: "127.0.0.1:25" is taken: submission.listen has "127.0.0.1:25"`},
		{"127.0.0.1:25", "", "127.0.0.1:80", "localhost:80", `TLSRELAY_ADMIN_LISTEN: "localhost:80" is taken: api.listen has "127.0.0.1:80"`},
		{"127.0.0.1:25,127.0.0.1:25", "", "127.0.0.1:80", "127.0.0.1:81", `TLSRELAY_SUBMISSION_LISTEN: "127.0.0.1:25" is taken: submission.listen has "127.0.0.1:25"`},
		{":25", "192.0.2.1:25", "127.0.0.1:80", "127.0.0.1:81", `TLSRELAY_SUBMISSION_LISTEN_TLS: "192.0.2.1:25" is taken: submission.listen has ":25"`},
		{"127.0.0.1:25", "0.0.0.0:25", "127.0.0.1:80", "127.0.0.1:81", `TLSRELAY_SUBMISSION_LISTEN_TLS: "0.0.0.0:25" is taken: submission.listen has "127.0.0.1:25"`},
		{"[::ffff:127.0.0.1]:25", "", "127.0.0.1:25", "127.0.0.1:81", `TLSRELAY_API_LISTEN: "127.0.0.1:25" is taken: submission.listen has "[::ffff:127.0.0.1]:25"`},
		{"127.0.0.1:25,127.0.0.2:25", "[::1]:25", "127.0.0.1:80", "127.0.0.1:81", ""},
		{"127.0.0.1:0,127.0.0.1:0", ":0", "127.0.0.1:0", "127.0.0.1:0", ""},
	} {
		_, err := Load("", []string{
			"TLSRELAY_SUBMISSION_LISTEN=" + c.submission, "TLSRELAY_SUBMISSION_LISTEN_TLS=" + c.tls,
			"TLSRELAY_API_LISTEN=" + c.api, "TLSRELAY_ADMIN_LISTEN=" + c.admin,
		})
		got := ""
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: got\n%s", c, got)
		}
	}
	path := write(t, "submission:\n  listen: ['127.0.0.1:8025']\n")
	if _, err := Load(path, nil); err == nil || strings.ReplaceAll(err.Error(), path, "F") !=
		`F:2: api.listen: "127.0.0.1:8025" is taken: submission.listen has "127.0.0.1:8025"` {
		t.Errorf("against a default: %v", err)
	}
}

func TestAdminHosts(t *testing.T) {
	for hosts, good := range map[string]bool{
		"tlsrelay,tlsrelay.mail.svc.cluster.local,my_app,192.0.2.1,::1": true,
		"tlsrelay:8026": false, "*": false, "http://tlsrelay": false, "a b": false,
	} {
		if _, err := Load("", []string{"TLSRELAY_ADMIN_HOSTS=" + hosts}); (err == nil) != good {
			t.Errorf("%s: %v", hosts, err)
		}
	}
}

// certificate writes a certificate of the given names and its key, and gives
// both files.
func certificate(t *testing.T, from, to time.Time, names ...string) (cert, key string) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ours"}, NotBefore: from, NotAfter: to}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// The relay's own certificates: when they hold, and whom they name.
func TestCertificateWarnings(t *testing.T) {
	now, day := time.Now(), 24*time.Hour
	text := func(t time.Time) string { return t.UTC().Format(time.DateOnly) }
	for _, c := range []struct {
		section, listen string
		from, to        time.Time
		names           []string
		want            string
	}{
		{"SUBMISSION", "", now.Add(-day), now.Add(day), []string{"relay.example", "other.example"}, ""},
		{"SUBMISSION", "", now.Add(-day), now.Add(day), []string{"*.example"}, ""},
		{"SUBMISSION", "", now.Add(-9 * day), now.Add(-2 * day), []string{"relay.example"}, `the certificate of "CN=ours" has expired on ` + text(now.Add(-2*day))},
		{"SUBMISSION", "", now.Add(2 * day), now.Add(9 * day), []string{"relay.example"}, `the certificate of "CN=ours" is not valid before ` + text(now.Add(2*day))},
		{"SUBMISSION", "", now.Add(-day), now.Add(day), []string{"mail.example", "192.0.2.1"}, "the certificate is for mail.example, 192.0.2.1 and not for relay.example, the hostname"},
		{"SUBMISSION", "", now.Add(-day), now.Add(day), nil, "the certificate names no host: clients that look at it refuse it"},
		{"API", "0.0.0.0:443", now.Add(-day), now.Add(day), []string{"api.example"}, ""},
		{"API", "0.0.0.0:443", now.Add(-day), now.Add(day), []string{"localhost", "127.0.0.1"}, "the certificate is for localhost, 127.0.0.1 alone, and 0.0.0.0:443 is beyond it"},
		{"API", "127.0.0.1:443", now.Add(-day), now.Add(day), []string{"localhost"}, ""},
		{"API", "127.0.0.1:443", now.Add(-9 * day), now.Add(-day), []string{"localhost"}, `the certificate of "CN=ours" has expired on ` + text(now.Add(-day))},
		{"ADMIN", "192.0.2.1:8026", now.Add(-day), now.Add(day), []string{"localhost"}, "the certificate is for localhost alone, and 192.0.2.1:8026 is beyond it"},
		{"ADMIN", "", now.Add(-day), now.Add(day), nil, "the certificate names no host: clients that look at it refuse it"},
	} {
		cert, key := certificate(t, c.from, c.to, c.names...)
		env := []string{"TLSRELAY_ADMIN_TOKEN=x", "TLSRELAY_" + c.section + "_CERT_FILE=" + cert, "TLSRELAY_" + c.section + "_KEY_FILE=" + key}
		if c.listen != "" {
			env = append(env, "TLSRELAY_"+c.section+"_LISTEN="+c.listen)
		}
		want := c.want
		if want != "" {
			want = "TLSRELAY_" + c.section + "_CERT_FILE: " + want
		}
		if got := warned(t, "hostname: relay.example\n", env...); got != want {
			t.Errorf("%+v: got\n%s\nwant\n%s", c, got, want)
		}
	}
	cert, _ := certificate(t, now, now)
	if _, err := Load("", []string{"TLSRELAY_ADMIN_CERT_FILE=" + cert}); err == nil || !strings.Contains(err.Error(), "must be set together with cert_file") {
		t.Errorf("a certificate without its key: %v", err)
	}
}
