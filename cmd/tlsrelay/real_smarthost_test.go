//go:build realclients

package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"tlsrelay/relay/relaytest"
)

// smarthost is the relay as another mail server's configuration names it. It
// has to be verified by its certificate and wants a log-in.
type smarthost struct {
	port        string // on 127.0.0.1
	name        string // in its certificate
	certificate string
	user, key   string
}

// smarthostClient starts a mail server in dir that listens at an address until
// the test ends, takes all mail there, and hands it to the relay.
type smarthostClient func(t *testing.T, dir string, listen netip.AddrPort, relay smarthost)

// smarthostTest is one mail server between an application and the relay.
type smarthostTest struct {
	*rig
	t                   *testing.T
	listen              netip.AddrPort
	good, other, sender *relaytest.Host
	receiver            *relaytest.Receiver
}

// testSmarthostClient holds that mail comes through the relay whole, once, and
// under the account's policy, and that what the relay refuses comes back.
func testSmarthostClient(t *testing.T, start smarthostClient) {
	r := newRig(t, withoutGuard)
	s := smarthostTest{rig: r, t: t, listen: r.world.AddDeadHost("smarthost.client.test"),
		good: r.world.Host(t, "mx.good.test"), other: r.world.Host(t, "mx.other.test"), sender: r.world.Host(t, "mx.sender.test")}
	r.world.Host(t, "mx.notls.test", relaytest.Script{NoTLS: true})
	s.receiver, _ = r.webhook()
	r.set(`{"require_tls":true}`)
	dir := publicDir(t)
	certificate, err := os.ReadFile(r.certificate())
	if err != nil {
		t.Fatal(err)
	}
	writePublic(t, filepath.Join(dir, "relay.pem"), string(certificate))
	start(t, dir, s.listen, smarthost{r.submissionPort(), r.config.Hostname, filepath.Join(dir, "relay.pem"), "apikey", r.key})
	awaitListener(t, s.listen)

	s.spreads()
	s.refuses()
	s.bursts()
	for h, want := range map[*relaytest.Host]int{s.good: 1 + burst, s.other: 1, s.sender: 2} {
		if n := h.Accepted(); n != want {
			t.Errorf("%d messages arrived at %s, want %d", n, h.Name(), want)
		}
	}
}

// clientBody is hard on programs that look at lines and octets.
var clientBody = "Grüße\r\n.\r\n.leading dot\r\n" + strings.Repeat("x", 900) + "\r\n"

// spreads sends one message to three domains, of which one has no TLS.
func (s smarthostTest) spreads() {
	s.t.Helper()
	const api = `X-SMTPAPI: {"unique_args":{"order":"42"},"category":["receipts"]}`
	handToClient(s.t, s.listen, clientMessage("spread", api, clientBody), "a@good.test", "b@other.test", "c@notls.test")
	for address, h := range map[string]*relaytest.Host{"a@good.test": s.good, "b@other.test": s.other} {
		m := h.Await(s.t, 1)[0]
		if m.TLSVersion == 0 || m.From != "app@sender.test" || m.To[0].Address != address ||
			header(m.Body, "X-SMTPAPI") != "" || !bytes.HasSuffix(m.Body, []byte("\r\n\r\n"+clientBody)) {
			s.t.Errorf("arrived from <%s> for %v as\n%q", m.From, m.To, m.Body)
		}
		e := s.event(s.receiver, address, "delivered")
		if e["order"] != "42" || e["tls"] != 1.0 || fmt.Sprint(e["category"]) != "[receipts]" {
			s.t.Errorf("event %v", e)
		}
	}
	e := s.event(s.receiver, "c@notls.test", "bounce")
	if e["type"] != "blocked" || e["status"] != "5.7.10" || e["order"] != "42" {
		s.t.Errorf("event %v", e)
	}
	if report := s.sender.Await(s.t, 1)[0]; report.From != "" || !bytes.Contains(report.Body, []byte("TLS required but not supported")) {
		s.t.Errorf("report from <%s>:\n%s", report.From, report.Body)
	}
}

// refuses sends recipients in X-SMTPAPI, which the relay refuses, so that the
// client reports, through the relay as well.
func (s smarthostTest) refuses() {
	s.t.Helper()
	handToClient(s.t, s.listen, clientMessage("refused", `X-SMTPAPI: {"to":["z@good.test"]}`, clientBody), "a@good.test")
	if report := s.sender.Await(s.t, 2)[1]; report.From != "" || !bytes.Contains(report.Body, []byte("5.6.0")) {
		s.t.Errorf("report from <%s>:\n%s", report.From, report.Body)
	}
}

// bursts hands many messages to the client at once, and waits until the relay
// has told of them all.
func (s smarthostTest) bursts() {
	s.t.Helper()
	for n := range burst {
		handToClient(s.t, s.listen, clientMessage(fmt.Sprintf("burst-%d", n), "", "Hello.\r\n"), fmt.Sprintf("burst-%d@good.test", n))
	}
	s.events(s.receiver, burst, func(e map[string]any) bool {
		return e["event"] == "delivered" && strings.HasPrefix(e["email"].(string), "burst-")
	})
	seen := map[string]int{}
	for _, m := range s.good.Messages() {
		if subject := header(m.Body, "Subject"); strings.HasPrefix(subject, "burst-") {
			seen[m.To[0].Address]++
		}
	}
	if len(seen) != burst {
		s.t.Errorf("%d of %d recipients got their message: %v", len(seen), burst, seen)
	}
}

func clientMessage(subject, field, body string) string {
	if field != "" {
		field += "\r\n"
	}
	return "From: <app@sender.test>\r\nTo: undisclosed-recipients:;\r\nSubject: " + subject + "\r\n" + field +
		"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + body
}

// handToClient hands one message to the client, as an application does that
// has its mail server at localhost.
func handToClient(t *testing.T, listen netip.AddrPort, text string, to ...string) {
	t.Helper()
	c, err := smtp.Dial(listen.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Mail("app@sender.test", &smtp.MailOptions{Body: smtp.Body8BitMIME}); err != nil {
		t.Fatal(err)
	}
	for _, rcpt := range to {
		if err := c.Rcpt(rcpt, nil); err != nil {
			t.Fatal(err)
		}
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
	if err := c.Quit(); err != nil {
		t.Fatal(err)
	}
}

func TestRealPostfixAsClient(t *testing.T) {
	testSmarthostClient(t, func(t *testing.T, dir string, listen netip.AddrPort, relay smarthost) {
		runPostfix(t, dir,
			fmt.Sprintf(postfixSmarthost, relay.port, relay.name, relay.certificate, relay.user, relay.key),
			listen.String()+" inet n - n - - smtpd\n")
	})
}

// The key is in the file itself, where people use hash: and postmap.
const postfixSmarthost = `relayhost = [127.0.0.1]:%[1]s
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = %[2]s
smtp_tls_CAfile = %[3]s
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = inline:{ {[127.0.0.1]:%[1]s = %[4]s:%[5]s} }
smtp_sasl_security_options = noanonymous
mynetworks = 127.0.0.0/8
`

func TestRealEximAsClient(t *testing.T) {
	testSmarthostClient(t, func(t *testing.T, dir string, listen netip.AddrPort, relay smarthost) {
		uid, gid := ids(t, "Debian-exim")
		ownedDir(t, filepath.Join(dir, "spool"), uid, gid)
		runExim(t, dir, fmt.Sprintf(eximSmarthost, dir, listen.Addr(), listen.Port(),
			relay.port, relay.name, relay.certificate, relay.user, relay.key))
	})
}

const eximSmarthost = `primary_hostname = exim.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/spool/%%slog
local_interfaces = %[2]s
daemon_smtp_ports = %[3]d
exim_user = Debian-exim
exim_group = Debian-exim
keep_environment =
host_lookup =
tls_advertise_hosts =
acl_smtp_rcpt = accept
qualify_domain = client.test

begin routers
smarthost:
  driver = manualroute
  route_list = * 127.0.0.1::%[4]s byname
  self = send
  transport = relay

begin transports
relay:
  driver = smtp
  hosts_require_tls = *
  hosts_require_auth = *
  tls_sni = %[5]s
  tls_verify_certificates = %[6]s
  tls_verify_cert_hostnames =

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^%[7]s^%[8]s
`
