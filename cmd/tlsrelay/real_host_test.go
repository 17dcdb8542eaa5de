//go:build realclients

package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"tlsrelay/relay/relaytest"
)

// realHost is one address at which a real mail server listens.
type realHost struct {
	domain string
	addr   netip.AddrPort
	chain  string // file with key and certificate; "": no STARTTLS
	newest string // the newest TLS version it speaks; "": the program's
}

// realPolicies are the settings of the columns below.
var realPolicies = []struct{ name, patch string }{
	{"O", `{"require_tls":false,"require_valid_cert":false,"version":1.1}`},
	{"T11", `{"require_tls":true,"require_valid_cert":false,"version":1.1}`},
	{"T12", `{"require_tls":true,"require_valid_cert":false,"version":1.2}`},
	{"T13", `{"require_tls":true,"require_valid_cert":false,"version":1.3}`},
	{"V11", `{"require_tls":false,"require_valid_cert":true,"version":1.1}`},
	{"V13", `{"require_tls":true,"require_valid_cert":true,"version":1.3}`},
}

// The reasons of the blocks below.
const (
	notOffered = "starttls_not_offered"
	untrusted  = "cert_untrusted"
	tooOld     = "tls_version"
)

// realOutcomes says per host what each policy comes to: the TLS version that
// the message arrives with, "clear", or the reason of the block. That a host is
// too old is known however it says so: OpenSSL names the version (alert 70),
// GnuTLS fails the handshake (40), Courier and aiosmtpd close.
var realOutcomes = map[string][]string{
	//            O        T11         T12         T13         V11         V13
	"good":      {"1.3", "1.3", "1.3", "1.3", "1.3", "1.3"},
	"unsigned":  {"1.3", "1.3", "1.3", "1.3", untrusted, untrusted},
	"notls":     {"clear", notOffered, notOffered, notOffered, notOffered, notOffered},
	"newest-12": {"1.2", "1.2", "1.2", tooOld, "1.2", tooOld},
	"newest-11": {"1.1", "1.1", tooOld, tooOld, "1.1", tooOld},
}

// realStatus is what the events say of a reason.
var realStatus = map[string]string{notOffered: "5.7.10", untrusted: "5.7.5", tooOld: "5.7.4"}

// realServer is a mail server.
type realServer struct {
	// start runs it at the addresses of hosts until the test ends. It takes
	// all mail, and puts it into the maildir called mail in dir.
	start func(t *testing.T, dir string, hosts map[string]realHost)
	// missing are the hosts that it cannot be, and why.
	missing map[string]string
	ascii   bool // it lists no SMTPUTF8
	unknown bool // it refuses recipients whose name begins with unknown
}

// testRealServer holds what every policy comes to against one mail server.
func testRealServer(t *testing.T, s realServer) {
	if os.Getuid() != 0 {
		t.Fatal("mail servers change users, and so have to be started by root")
	}
	r := newRig(t, withoutGuard)
	r.world.Host(t, "mx.sender.test") // for the reports of blocks
	dir := publicDir(t)
	hosts := realHosts(t, r.world, dir, s.missing)
	s.start(t, dir, hosts)
	for _, h := range hosts {
		awaitListener(t, h.addr)
	}
	receiver, _ := r.webhook()
	arrived := 2 // whole messages
	for column, p := range realPolicies {
		r.set(p.patch)
		var cases []realCase
		for name, h := range hosts {
			id := r.submit("app@sender.test", p.name+"@"+h.domain)
			cases = append(cases, realCase{p.name + "/" + name, r, dir, id, p.name + "@" + h.domain, h, realOutcomes[name][column]})
		}
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) { arrived += c.ends(t, receiver) })
		}
	}
	t.Run("whole", func(t *testing.T) {
		if s.ascii {
			r.needsUTF8(t, receiver, hosts["good"])
		}
		r.keepsMessagesWhole(t, dir, hosts["good"], s.ascii)
	})
	t.Run("burst", func(t *testing.T) { r.takesBurst(t, receiver, dir, hosts["good"]) })
	arrived += burst
	if s.unknown {
		t.Run("unknown", func(t *testing.T) { r.asksForUnknown(t, receiver, dir, hosts["good"]) })
		arrived += 2
	}
	if got := len(maildir(t, dir)); got != arrived {
		t.Errorf("%d messages arrived, want %d", got, arrived)
	}
}

// realHosts makes certificates and names for the rows of realOutcomes but
// those that are missing.
func realHosts(t *testing.T, w *relaytest.World, dir string, missing map[string]string) map[string]realHost {
	t.Helper()
	hosts := map[string]realHost{}
	for name := range realOutcomes {
		if missing[name] != "" {
			continue
		}
		domain := name + ".test"
		h := realHost{domain: domain, addr: w.AddDeadHost("mx." + domain)}
		if name != "notls" {
			cert := relaytest.Cert{Names: []string{"mx." + domain}, SelfSigned: name == "unsigned"}
			h.chain = filepath.Join(dir, h.addr.Addr().String()+".pem")
			writeChain(t, w, h.chain, cert)
		}
		if _, version, ok := strings.Cut(name, "newest-1"); ok {
			h.newest = "1." + version
		}
		hosts[name] = h
	}
	return hosts
}

func writeChain(t *testing.T, w *relaytest.World, file string, c relaytest.Cert) {
	t.Helper()
	issued, err := w.CA.Issue(c)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for _, der := range issued.Certificate {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	writePublic(t, file, string(text))
}

// realCase is one message to one host under one policy.
type realCase struct {
	name      string
	rig       *rig
	dir       string
	id        string
	recipient string
	host      realHost
	want      string // see realOutcomes
}

// ends holds what the message comes to, and counts what arrives of it.
func (c realCase) ends(t *testing.T, receiver *relaytest.Receiver) int {
	t.Helper()
	if status := realStatus[c.want]; status != "" {
		c.blocked(t, receiver, c.want, status)
		return 0
	}
	c.delivered(t, receiver, c.want)
	return 1
}

func (c realCase) delivered(t *testing.T, receiver *relaytest.Receiver, how string) {
	t.Helper()
	e := c.rig.event(receiver, c.recipient, "delivered")
	wantTLS, wantCertErr := any(1.0), any(nil)
	if how == "clear" {
		wantTLS = 0.0
	}
	if strings.Contains(c.host.domain, "unsigned") {
		wantCertErr = 1.0
	}
	if e["tls"] != wantTLS || e["cert_err"] != wantCertErr {
		t.Errorf("delivered event %v", e)
	}
	m := c.arrived(t)
	if got := arrivedBy(m); got != how {
		t.Errorf("arrived by %s, want %s:\n%s", got, how, m)
	}
}

func (c realCase) blocked(t *testing.T, receiver *relaytest.Receiver, reason, status string) {
	t.Helper()
	e := c.rig.event(receiver, c.recipient, "bounce")
	if e["type"] != "blocked" || e["reason"] != "TLS required but not supported" || e["status"] != status {
		t.Errorf("event %v, want a block with status %s", e, status)
	}
	shown, err := c.rig.command("queue", "show", c.id)
	if err != nil || !strings.Contains(shown, reason) {
		t.Errorf("no %s in the evidence: %v\n%s", reason, err, shown)
	}
}

// arrived waits for the message in the server's maildir. The server says 250
// before it puts it there.
func (c realCase) arrived(t *testing.T) []byte {
	t.Helper()
	return awaitMail(t, c.dir, func(m []byte) bool { return strings.Trim(header(m, "To"), "<>") == c.recipient })
}

func awaitMail(t *testing.T, dir string, want func(message []byte) bool) []byte {
	t.Helper()
	for end := time.Now().Add(realPatience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, m := range maildir(t, dir) {
			if want(m) {
				return m
			}
		}
	}
	t.Fatal("the message did not arrive")
	return nil
}

func maildir(t *testing.T, dir string) (all [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "mail", "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

var receivedTLS = regexp.MustCompile(`TLS(?:v|-)?(1(?:\.[0-3])?)\b`)

// arrivedBy reads what the server wrote about the connection into its own
// Received, the topmost.
func arrivedBy(message []byte) string {
	version := receivedTLS.FindStringSubmatch(header(message, "Received"))
	if version == nil {
		return "clear"
	}
	return version[1]
}

// needsUTF8 sends to an address that the host cannot take.
func (r *rig) needsUTF8(t *testing.T, receiver *relaytest.Receiver, h realHost) {
	t.Helper()
	c := r.login(t)
	defer c.Close()
	r.handOver(t, c, "grüße@"+h.domain, &smtp.MailOptions{UTF8: true}, "Subject: utf8\r\n\r\n")
	if e := r.event(receiver, "grüße@"+h.domain, "bounce"); e["status"] != "5.6.7" {
		t.Errorf("event %v, want status 5.6.7", e)
	}
}

// login is a client of the relay that may send.
func (r *rig) login(t *testing.T) *smtp.Client {
	t.Helper()
	c, err := smtp.DialStartTLS(r.app.submission.Addrs()[0].String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Auth(sasl.NewPlainClient("", "apikey", r.key)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *rig) handOver(t *testing.T, c *smtp.Client, to string, opts *smtp.MailOptions, text string) {
	t.Helper()
	if err := c.Mail("app@sender.test", opts); err != nil {
		t.Fatal(err)
	}
	if err := c.Rcpt(to, &smtp.RcptOptions{Notify: []smtp.DSNNotify{smtp.DSNNotifyFailure}}); err != nil {
		t.Fatal(err)
	}
	w, err := c.Data()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// keepsMessagesWhole sends 8-bit text and lines of dots, and some megabytes,
// to an address that needs SMTPUTF8 where the host has it, with the parameters
// of DSN.
func (r *rig) keepsMessagesWhole(t *testing.T, dir string, h realHost, ascii bool) {
	r.set(realPolicies[len(realPolicies)-1].patch)
	bodies := map[string]string{
		"dots":  "Grüße\r\n.\r\n..\r\n.x\r\n\r\n" + strings.Repeat("ü", 400) + "\r\n \r\n",
		"large": strings.Repeat("0123456789abcdef 0123456789abcdef 0123456789abcdef 0123456789ab\r\n.\r\n", 40_000),
	}
	to := "grüße@" + h.domain
	if ascii {
		to = "whole@" + h.domain
	}
	c := r.login(t)
	defer c.Close()
	for name, body := range bodies {
		r.handOver(t, c, to, &smtp.MailOptions{UTF8: !ascii, Body: smtp.Body8BitMIME, Return: smtp.DSNReturnHeaders, EnvelopeID: "order-42"},
			fmt.Sprintf("From: <app@sender.test>\r\nSubject: %s\r\nX-SMTPAPI: {\"category\":\"x\"}\r\n\r\n%s", name, body))
	}
	for name, body := range bodies {
		m := awaitMail(t, dir, func(m []byte) bool { return header(m, "Subject") == name })
		_, got, _ := bytes.Cut(m, []byte("\n\n"))
		if want := strings.ReplaceAll(body, "\r\n", "\n"); string(got) != want {
			t.Errorf("%s: %d octets arrived, want %d", name, len(got), len(want))
		}
		if header(m, "X-SMTPAPI") != "" {
			t.Errorf("%s: X-SMTPAPI went out", name)
		}
	}
}

// publicDir is a folder that any user may enter, unlike those of t.TempDir,
// and with a path short enough for sockets in it.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tlsrelay-real-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func writePublic(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ownedDir makes a folder that belongs to a user.
func ownedDir(t *testing.T, path string, uid, gid int) string {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
	return path
}

// runServer runs a server in the foreground until the test ends, in a process
// group of its own, which stop has to end. A test that fails shows the
// server's log.
func runServer(t *testing.T, cmd *exec.Cmd, stop func() error) {
	t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL // should this process be killed
	cmd.WaitDelay = 5 * time.Second             // a child may keep the log open
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("stopping %s: %v", filepath.Base(cmd.Path), err)
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		cmd.Wait()
		if t.Failed() {
			t.Logf("%s said\n%s", filepath.Base(cmd.Path), log.String())
		}
	})
}

func awaitListener(t *testing.T, addr netip.AddrPort) {
	t.Helper()
	var err error
	for end := time.Now().Add(relaytest.Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var c net.Conn
		if c, err = net.Dial("tcp", addr.String()); err == nil {
			c.Close()
			return
		}
	}
	t.Fatal(err)
}
