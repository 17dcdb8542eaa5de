package configs

import (
	"errors"
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
	want := `admin.token: must be set to listen beyond loopback
F:1: hostname: "not a name" is not a domain name
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
F:15: webhooks: must hold keys and values`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
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
	})
}
