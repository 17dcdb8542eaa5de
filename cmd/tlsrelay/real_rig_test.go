//go:build realclients

package main

// The tests named TestReal… drive the relay with programs that people already
// have. They need what .ci/run installs; a program that is missing is a
// failure, so that nobody takes a hole for a pass.
//
//	real_node_test.go       @sendgrid/client, @sendgrid/eventwebhook, nodemailer
//	real_sendgridgo_test.go sendgrid-go
//	real_submit_test.go     curl, smtplib, swaks
//	real_newline_test.go    ... with lines that end in LF alone
//	real_readme_test.go     the commands of the README and of the first start
//	real_host_test.go       every policy against real receiving hosts:
//	real_burst_test.go      ... and many messages at once
//	real_postfix_test.go    ... Postfix, which is OpenSSL
//	real_exim_test.go       ... Exim, which is GnuTLS
//	real_chasquid_test.go   ... chasquid, which is Go
//	real_haraka_test.go     ... Haraka, which is Node
//	real_library_test.go    ... aiosmtpd and npm's smtp-server, which are OpenSSL again
//	real_smarthost_test.go  Postfix and Exim with the relay as smarthost ...
//	real_opensmtpd_test.go  ... OpenSMTPD
//	real_sendmail_test.go   ... and sendmail, which is a receiver, too
//	real_courier_test.go    ... Courier, which is GnuTLS, too
//	real_unpacked_test.go   how those run that are not installed
//	real_balancer_test.go   HAProxy, which tells of its clients by the PROXY protocol

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/relay/certificate"
)

// realPatience bounds one run of a program and every wait for one.
const realPatience = time.Minute

func patience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), realPatience)
}

// realProgram gives the path of a program that has to be there.
func realProgram(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("none of %q is installed; .ci/run installs everything", names)
	return ""
}

// realCommand is a command with the given additions to its environment.
func realCommand(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := patience()
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, realProgram(t, name), args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// succeed runs a command that has to succeed and gives its standard output.
func succeed(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", filepath.Base(cmd.Path), err, out.String(), trouble.String())
	}
	return out.String()
}

// refuse runs a command that has to fail and gives all it printed.
func refuse(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("%s succeeded:\n%s", filepath.Base(cmd.Path), out)
	}
	return string(out)
}

// withoutGuard is for worlds in which nearly every domain violates.
func withoutGuard(c *configs.Config) { c.Delivery.ViolationGuardDomains = 0 }

// submissionPort is where the rig takes mail.
func (r *rig) submissionPort() string {
	r.t.Helper()
	_, port, err := net.SplitHostPort(r.app.submission.Addrs()[0].String())
	if err != nil {
		r.t.Fatal(err)
	}
	return port
}

// certificate is the file of the relay's own, self-signed certificate.
func (r *rig) certificate() string {
	r.t.Helper()
	file, _, err := certificate.SelfSigned(r.config.DataDir, r.config.Hostname)
	if err != nil {
		r.t.Fatal(err)
	}
	return file
}

// submitter is the environment of the submitting scripts.
func (r *rig) submitter(from, to string) []string {
	return []string{
		"SMTP_HOST=127.0.0.1", "SMTP_PORT=" + r.submissionPort(), "SMTP_NAME=" + r.config.Hostname,
		"CA_FILE=" + r.certificate(), "SENDGRID_API_KEY=" + r.key, "FROM=" + from, "TO=" + to,
	}
}

// header gives a header field of a message, unfolded; "" when it is missing.
func header(message []byte, name string) string {
	head, _, _ := strings.Cut(strings.ReplaceAll(string(message), "\r\n", "\n"), "\n\n")
	head = strings.ReplaceAll(strings.ReplaceAll(head, "\n ", " "), "\n\t", " ")
	for line := range strings.Lines(head) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(key, name) {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
