//go:build realclients

package main

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"tlsrelay/configs"
)

// smtplib, and what Python's e-mail package makes of a long header.
func TestRealSmtplib(t *testing.T) {
	r := newRig(t)
	host := r.world.Host(t, "mx.good.test")
	receiver, _ := r.webhook()
	succeed(t, realCommand(t, r.submitter("app@sender.test", "a@good.test"), "python3", filepath.Join("testdata", "clients", "submit.py")))
	body := "Grüße\r\n.\r\n.leading dot\r\n" + strings.Repeat("x", 900) + "\r\n"
	var subjects []string
	for _, m := range host.Await(t, 4) {
		subjects = append(subjects, header(m.Body, "Subject"))
		if header(m.Body, "X-SMTPAPI") != "" || !bytes.HasSuffix(m.Body, []byte("\r\n\r\n"+body)) {
			t.Errorf("delivered as\n%q", m.Body)
		}
	}
	for _, s := range []string{"spaced", "dense", "raw", "last"} {
		if strings.Count(strings.Join(subjects, " "), s) != 1 {
			t.Errorf("delivered %q, want one %s", subjects, s)
		}
	}
	r.events(receiver, 3, func(e map[string]any) bool {
		return e["event"] == "delivered" && e["order"] == "42" && e["place"] == "Zürich" &&
			e["long"] == strings.Repeat("y", 300) && fmt.Sprint(e["category"]) == "[receipts]"
	})
}

// curl verifies the certificate and its name, over STARTTLS and implicit TLS,
// with both ways to log in.
func TestRealCurl(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Submission.ListenTLS = []string{"127.0.0.1:0"} })
	host := r.world.Host(t, "mx.good.test")
	_, tlsPort, err := net.SplitHostPort(r.app.submission.AddrsTLS()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	send := func(scheme, port, auth, key, to string, more ...string) []string {
		return append([]string{
			"--silent", "--show-error", "--cacert", r.certificate(),
			"--resolve", r.config.Hostname + ":" + port + ":127.0.0.1",
			"--url", scheme + "://" + r.config.Hostname + ":" + port,
			"--user", "apikey:" + key, "--login-options", "AUTH=" + auth,
			"--mail-from", "app@sender.test", "--mail-rcpt", to, "--upload-file", "-",
		}, more...)
	}
	curl := func(args []string) (cmd string) {
		c := realCommand(t, nil, "curl", args...)
		c.Stdin = strings.NewReader("From: app@sender.test\r\nSubject: curl\r\n\r\n.\r\nHello.\r\n")
		return succeed(t, c)
	}
	for _, auth := range []string{"PLAIN", "LOGIN"} {
		curl(send("smtp", r.submissionPort(), auth, r.key, "a@good.test", "--ssl-reqd"))
		curl(send("smtps", tlsPort, auth, r.key, "a@good.test"))
	}
	for _, m := range host.Await(t, 4) {
		if !bytes.HasSuffix(m.Body, []byte("\r\n\r\n.\r\nHello.\r\n")) || m.TLSVersion == 0 {
			t.Errorf("delivered as\n%s", m.Body)
		}
	}
	for name, args := range map[string][]string{
		"a bad key":           send("smtp", r.submissionPort(), "PLAIN", r.key+"x", "a@good.test", "--ssl-reqd"),
		"a log-in in clear":   send("smtp", r.submissionPort(), "PLAIN", r.key, "a@good.test"),
		"a bad recipient":     send("smtp", r.submissionPort(), "PLAIN", r.key, "a b@good.test", "--ssl-reqd"),
		"TLS 1.1 and no more": send("smtps", tlsPort, "PLAIN", r.key, "a@good.test", "--tls-max", "1.1"),
	} {
		c := realCommand(t, nil, "curl", args...)
		c.Stdin = strings.NewReader("Subject: no\r\n\r\nno\r\n")
		if out := refuse(t, c); t.Failed() {
			t.Fatalf("%s: %s", name, out)
		}
	}
	if n := host.Accepted(); n != 4 {
		t.Errorf("%d messages arrived, want 4", n)
	}
}

// swaks shows the dialogue, so this test reads the replies.
func TestRealSwaks(t *testing.T) {
	r := newRig(t)
	host := r.world.Host(t, "mx.good.test")
	swaks := func(key string, more ...string) []string {
		return append([]string{
			"--server", "127.0.0.1", "--port", r.submissionPort(), "--helo", "client.test",
			"--auth-user", "apikey", "--auth-password", key,
			"--from", "app@sender.test", "--to", "a@good.test", "--body", "Hello.",
		}, more...)
	}
	verified := []string{"--tls", "--tls-verify", "--tls-ca-path", r.certificate()}
	for _, auth := range []string{"PLAIN", "LOGIN"} {
		for _, pipeline := range [][]string{nil, {"--pipeline"}} {
			args := append(append(swaks(r.key, "--auth", auth), verified...), pipeline...)
			out := succeed(t, realCommand(t, nil, "swaks", args...))
			for _, want := range []string{"235 2.7.0", "250 2.0.0 Ok: queued as ", "221 2.0.0"} {
				if !strings.Contains(out, want) {
					t.Errorf("%s %v: no %q in\n%s", auth, pipeline, want, out)
				}
			}
		}
		out := refuse(t, realCommand(t, nil, "swaks", append(swaks(r.key+"x", "--auth", auth), verified...)...))
		if !strings.Contains(out, "535 5.7.8 Authentication failed") {
			t.Errorf("%s with a bad key:\n%s", auth, out)
		}
		out = refuse(t, realCommand(t, nil, "swaks", swaks(r.key, "--auth", auth)...))
		if strings.Contains(out, "AUTH PLAIN") || strings.Contains(out, "queued as") {
			t.Errorf("%s in clear:\n%s", auth, out)
		}
	}
	host.Await(t, 4)
}
