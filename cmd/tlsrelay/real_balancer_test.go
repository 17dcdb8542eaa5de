//go:build realclients

package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tlsrelay/configs"
)

// HAProxy in front of the relay, with the PROXY protocol in both versions, before
// STARTTLS and before TLS from the first octet: the relay knows the clients, and the
// health checks that HAProxy makes for itself find it well and log nothing.
func TestRealHAProxy(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Submission.ListenTLS = []string{"127.0.0.1:0"}
		c.Submission.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	host := r.world.Host(t, "mx.good.test")
	var front []string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		front = append(front, l.Addr().String())
		l.Close()
	}
	config := filepath.Join(t.TempDir(), "haproxy.cfg")
	text := fmt.Sprintf(`defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen clear
  bind %s
  option smtpchk EHLO checker.test
  server relay %s send-proxy check check-send-proxy inter 200
listen tls
  bind %s
  server relay %s send-proxy-v2 check check-send-proxy inter 200
`, front[0], r.app.submission.Addrs()[0], front[1], r.app.submission.AddrsTLS()[0])
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	balancer := realCommand(t, nil, "haproxy", "-db", "-f", config)
	if err := balancer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		balancer.Process.Kill()
		balancer.Wait()
	})
	eventually(t, "HAProxy is up", func() bool {
		c, err := net.DialTimeout("tcp", front[1], time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	checks := func() float64 { return r.metric("tlsrelay_submission_connections_total") }
	before := checks()
	eventually(t, "health checks come", func() bool { return checks() > before+6 })
	for i, scheme := range []string{"smtp", "smtps"} {
		_, port, _ := net.SplitHostPort(front[i])
		c := realCommand(t, nil, "curl", "--silent", "--show-error", "--cacert", r.certificate(), "--interface", "127.0.0.5",
			"--resolve", r.config.Hostname+":"+port+":127.0.0.1", "--url", scheme+"://"+r.config.Hostname+":"+port, "--ssl-reqd",
			"--user", "apikey:"+r.key, "--mail-from", "app@sender.test", "--mail-rcpt", "a@good.test", "--upload-file", "-")
		c.Stdin = strings.NewReader("From: app@sender.test\r\nSubject: curl\r\n\r\nHello.\r\n")
		succeed(t, c)
	}
	for _, m := range host.Await(t, 2) {
		if got := header(m.Body, "Received"); !strings.Contains(got, "([127.0.0.5])") {
			t.Errorf("received %s", got)
		}
	}
	if n := r.metric(`tlsrelay_submission_rejected_total{cause="proxy_header"}`); n != 0 {
		t.Errorf("%v connections without a header", n)
	}
}
