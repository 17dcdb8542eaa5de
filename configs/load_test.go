package configs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsHoldWithoutAFile(t *testing.T) {
	c, err := Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Delivery.Lifetime != 72*time.Hour || c.Submission.Listen[0] != "127.0.0.1:2525" || c.Delivery.Port != 25 {
		t.Errorf("got %+v", c)
	}
}

// Every key of Config stands in defaults.yaml, so that the printed defaults
// are the whole truth.
func TestDefaultsNameEveryKey(t *testing.T) {
	var l loader
	l.parse("defaults", []byte(Defaults))
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			key := prefix + v.Type().Field(i).Tag.Get("yaml")
			if isSection(v.Field(i)) {
				walk(key+".", v.Field(i))
			} else if _, ok := l.origin[key]; !ok {
				t.Errorf("%s has no default", key)
			}
		}
	}
	walk("", reflect.ValueOf(l.config))
}

func TestEveryFaultWithItsLine(t *testing.T) {
	path := write(t, `hostname: "not a name"
data_dir: ""
colour: blue
submission:
  listen: [127.0.0.1]
  max_recipients: many
  trusted_networks: [10.0.0.0/33]
delivery:
  port: 70000
  retry_after: 5 minutes
  polcy_window: 1h
  opportunistic_min_version: "1.4"
  dnssec: maybe
  port: 25
webhooks: 7
admin:
  listen: 0.0.0.0:8026
`)
	_, err := Load(path, nil)
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("got %v", err)
	}
	got := strings.ReplaceAll(faults.Error(), path, "F")
	want := `F:1: hostname: "not a name" is not a domain name
F:2: data_dir: must not be empty
F:3: colour: unknown key
F:5: submission.listen: "127.0.0.1" is not host:port
F:6: submission.max_recipients: must be a whole number
F:7: submission.trusted_networks: must be a list of networks such as 192.0.2.0/24
F:9: delivery.port: must be 1 to 65535
F:10: delivery.retry_after: must be a duration such as "90s", "5m" or "72h"
F:11: delivery.polcy_window: unknown key
F:12: delivery.opportunistic_min_version: must be a TLS version: 1.0, 1.1, 1.2 or 1.3
F:13: delivery.dnssec: must be auto, trust or off
F:14: delivery.port: is set already in line 9
F:15: webhooks: must hold keys and values
F:17: admin.token: must be set to listen beyond loopback`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A key that is at fault beside another has that one's line where it stands
// nowhere itself.
func TestFaultsBesideAnotherKey(t *testing.T) {
	for text, want := range map[string]string{
		"webhooks:\n  retry_after: 20m\n":                                       "F:2: webhooks.retry_max: must not be shorter than retry_after",
		"delivery:\n  retry_max: 1m\n":                                          "F:2: delivery.retry_max: must not be shorter than retry_after",
		"delivery: {ignore_keywords: {mx.example.com: [CHUNKING, starttls]}}\n": "F:1: delivery.ignore_keywords: STARTTLS cannot be ignored",
		"delivery: {ignore_keywords: {\"*.example.com\": [\"8 BIT\"]}}\n":       "F:1: delivery.ignore_keywords: \"8 BIT\" is no EHLO keyword",
		"delivery: {ignore_keywords: {\"mx.*\": [RequireTLS]}}\n":               "F:1: delivery.ignore_keywords: \"mx.*\" is neither a host name nor *.domain nor *\nF:1: delivery.ignore_keywords: REQUIRETLS cannot be ignored",
		"delivery: {ignore_keywords: {\"*\": CHUNKING}}\n":                      "F:1: delivery.ignore_keywords: must be a mapping of names to lists of keywords",
		"delivery: {max_messages_per_connection: -1}\n":                         "F:1: delivery.max_messages_per_connection: must not be negative",
		"api:\n  key_file: load.go\n":                                           "F:2: api.cert_file: must be set together with key_file",
		"a: 1\n---\nb: 2\n":                                                     "F:1: a: unknown key\nF:2: another YAML document; one is read",
		"hostname: a.test\n---\n---\nb: 2\n":                                    "F:3: another YAML document; one is read",
	} {
		path := write(t, text)
		_, err := Load(path, nil)
		if err == nil || strings.ReplaceAll(err.Error(), path, "F") != want {
			t.Errorf("%q: %v", text, err)
		}
	}
	_, err := Load("", []string{"TLSRELAY_ADMIN_LISTEN=0.0.0.0:1"})
	if want := "admin.token: must be set to listen beyond loopback"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// What is named as a certificate is one, and the key is its own.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, blocks ...*pem.Block) string {
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(b)...)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pair := func() (cert, key *pem.Block) {
		secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
		if err != nil {
			t.Fatal(err)
		}
		pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		return &pem.Block{Type: "CERTIFICATE", Bytes: der}, &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}
	}
	c, k := pair()
	_, k2 := pair()
	cert, key, other, empty := file("cert", c), file("key", k), file("other", k2), file("empty")
	for _, x := range []struct{ cert, key, roots, want string }{
		{cert, key, cert, ""},
		{cert, other, "", "TLSRELAY_API_KEY_FILE: " + other + ": holds no private key for " + cert},
		{key, key, "", "TLSRELAY_API_CERT_FILE: " + key + ": holds no certificate in PEM"},
		{empty, key, "", "TLSRELAY_API_CERT_FILE: " + empty + ": holds no certificate in PEM"},
		{cert, empty, "", "TLSRELAY_API_KEY_FILE: " + empty + ": holds no private key for " + cert},
		{cert, key, empty, "TLSRELAY_DELIVERY_ROOT_CA_FILE: " + empty + ": holds no certificate in PEM"},
		{cert, dir, "", "TLSRELAY_API_KEY_FILE: " + dir + ": no such file, or not readable"},
	} {
		_, err := Load("", []string{"TLSRELAY_API_CERT_FILE=" + x.cert, "TLSRELAY_API_KEY_FILE=" + x.key, "TLSRELAY_DELIVERY_ROOT_CA_FILE=" + x.roots})
		if got := fmt.Sprint(err); (err != nil || x.want != "") && got != x.want {
			t.Errorf("got %s, want %s", got, x.want)
		}
	}
}

// There is one store, and nobody is left to think that another is used.
func TestNoOtherStore(t *testing.T) {
	for _, name := range []string{"TLSRELAY_STORE", "TLSRELAY_STORE_FILE"} {
		if _, err := Load("", []string{name + "=postgres://db.example/mail"}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Load("", []string{name + "="}); err != nil {
			t.Errorf("%s empty: %v", name, err)
		}
	}
}

func TestSyntaxErrorHasALine(t *testing.T) {
	_, err := Load(write(t, "delivery:\n  port: [25\napi: x\n"), nil)
	if err == nil || !strings.Contains(err.Error(), "relay.yaml:") {
		t.Errorf("got %v", err)
	}
}

func TestMissingFile(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestEnvironmentOverridesTheFile(t *testing.T) {
	path := write(t, "delivery:\n  port: 26\n  retry_after: 1m\nhostname: a.example\n")
	c, err := Load(path, []string{
		"TLSRELAY_DELIVERY_PORT=2600",
		"TLSRELAY_SUBMISSION_LISTEN=127.0.0.1:1, 127.0.0.1:2",
		"TLSRELAY_SUBMISSION_ALLOW_PLAINTEXT_AUTH=true",
		"TLSRELAY_HOSTNAME=b.example",
		"TLSRELAY_DELIVERY_OPPORTUNISTIC_MIN_VERSION=1.2",
		"OTHER=1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Delivery.Port != 2600 || len(c.Submission.Listen) != 2 || !c.Submission.AllowPlaintextAuth ||
		c.Hostname != "b.example" || c.Delivery.RetryAfter != time.Minute || c.Delivery.OpportunisticMinVersion.String() != "1.2" {
		t.Errorf("got %+v", c)
	}
}

// A message has at most so many deliveries as their numbers can tell apart.
func TestRecipientsAreBounded(t *testing.T) {
	for value, good := range map[string]bool{"99": false, "100": true, "65536": true, "65537": false} {
		_, err := Load("", []string{"TLSRELAY_SUBMISSION_MAX_RECIPIENTS=" + value})
		if (err == nil) != good {
			t.Errorf("%s: %v", value, err)
		}
	}
}

func TestBareNewlines(t *testing.T) {
	for value, want := range map[string]string{
		"normalize": "", "refuse": "",
		"":       "TLSRELAY_SUBMISSION_BARE_NEWLINES: must be normalize or refuse",
		"reject": "TLSRELAY_SUBMISSION_BARE_NEWLINES: must be normalize or refuse",
	} {
		_, err := Load("", []string{"TLSRELAY_SUBMISSION_BARE_NEWLINES=" + value})
		if got := fmt.Sprint(err); (err != nil || want != "") && got != want {
			t.Errorf("%q: %v", value, err)
		}
	}
}

func TestBoundsOfStrangers(t *testing.T) {
	for text, want := range map[string]string{
		"max_strangers_per_ip: 0":                       "",
		"max_strangers_per_ip: -1":                      "F:2: submission.max_strangers_per_ip: must not be negative",
		"login_timeout: 0s":                             "F:2: submission.login_timeout: must be longer than zero",
		"login_timeout: soon":                           "F:2: submission.login_timeout: must be a duration such as \"90s\", \"5m\" or \"72h\"",
		"proxy_protocol: [192.0.2.0/24, 2001:db8::/32]": "",
		"proxy_protocol: [192.0.2.1]":                   "F:2: submission.proxy_protocol: must be a list of networks such as 192.0.2.0/24",
		"proxy_protocol: 192.0.2.0/24":                  "F:2: submission.proxy_protocol: must be a list of networks such as 192.0.2.0/24",
	} {
		path := write(t, "submission:\n  "+text+"\n")
		_, err := Load(path, nil)
		if got := strings.ReplaceAll(fmt.Sprint(err), path, "F"); (err != nil || want != "") && got != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestEnvironmentFaultsNameTheVariable(t *testing.T) {
	_, err := Load("", []string{"TLSRELAY_DELIVERY_PORT=smtp", "TLSRELAY_DELIVERY_RETRY_MAX=1s"})
	want := "TLSRELAY_DELIVERY_PORT: must be a whole number\nTLSRELAY_DELIVERY_RETRY_MAX: must not be shorter than retry_after"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestAdminTokenFromFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	os.WriteFile(file, []byte("s3cret\n"), 0o600)
	c, err := Load("", []string{"TLSRELAY_ADMIN_TOKEN_FILE=" + file})
	if err != nil || c.Admin.Token != "s3cret" {
		t.Errorf("token %q, %v", c.Admin.Token, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(Defaults))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("delivery: {routes: {\"*\": 127.0.0.1:25}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var l loader
		l.parse("defaults", []byte(Defaults))
		l.parse("file", text)
		l.validate()
		l.name()
		l.warn(time.Now())
	})
}
