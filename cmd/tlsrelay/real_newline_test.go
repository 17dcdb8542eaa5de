//go:build realclients

package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// Ordinary programs end lines with LF alone: smtplib with bytes, curl without
// --crlf. The lines arrive as lines, and one of a single dot, which smtplib
// doubles, as itself.
func TestRealBareNewlines(t *testing.T) {
	r := newRig(t)
	host := r.world.Host(t, "mx.good.test")
	succeed(t, realCommand(t, r.submitter("app@sender.test", "a@good.test"), "python3", filepath.Join("testdata", "clients", "newline.py")))
	// smtplib takes the last LF for no line end, and adds one.
	if m := host.Await(t, 1)[0]; !bytes.HasSuffix(m.Body, []byte("\r\n\r\nHello.\r\n.\r\nMAIL FROM:<x@sender.test>\r\n..\r\nBye.\r\n\r\n")) ||
		header(m.Body, "Subject") != "bytes" {
		t.Errorf("delivered as\n%q", m.Body)
	}
	curl := realCommand(t, nil, "curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", r.certificate(),
		"--resolve", r.config.Hostname+":"+r.submissionPort()+":127.0.0.1",
		"--url", "smtp://"+r.config.Hostname+":"+r.submissionPort(), "--user", "apikey:"+r.key,
		"--mail-from", "app@sender.test", "--mail-rcpt", "a@good.test", "--upload-file", "-")
	curl.Stdin = strings.NewReader("From: app@sender.test\nSubject: curl\n\nHello.\nBye.\n")
	succeed(t, curl)
	if m := host.Await(t, 2)[1]; !bytes.Contains(m.Body, []byte("\r\n\r\nHello.\r\nBye.\r\n")) || header(m.Body, "Subject") != "curl" ||
		bytes.Contains(bytes.ReplaceAll(m.Body, []byte("\r\n"), nil), []byte("\n")) {
		t.Errorf("delivered as\n%q", m.Body)
	}
}
