package deliver

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"tlsrelay/policy"
	"tlsrelay/policy/domain"
	"tlsrelay/relay/relaytest"
	"tlsrelay/relay/resolve"
)

// TestNames is the table of names: which name must match, and
// which is asked for.
func TestNames(t *testing.T) {
	w := relaytest.Start(t)
	for name, c := range map[string]struct {
		cert  []string // "ADDRESS" stands for the host's address
		facts policy.Facts
		sni   string
		fate  string
	}{
		"literal/IP-SAN":        {[]string{"ADDRESS"}, policy.Facts{Literal: "ADDRESS"}, "", "tls"},
		"literal/no-IP-SAN":     {[]string{"mx1.example.test"}, policy.Facts{Literal: "ADDRESS"}, "", "block"},
		"smart-host/its-name":   {[]string{"smart.relay.test"}, policy.Facts{Host: domain.MustParse("smart.relay.test")}, "smart.relay.test", "tls"},
		"smart-host/recipient":  {[]string{"example.test"}, policy.Facts{Host: domain.MustParse("smart.relay.test")}, "smart.relay.test", "block"},
		"IDN":                   {[]string{"mx.xn--bcher-kva.test"}, policy.Facts{Host: domain.MustParse("mx.bücher.test")}, "mx.xn--bcher-kva.test", "tls"},
		"case":                  {[]string{"MX1.Example.Test"}, policy.Facts{Host: domain.MustParse("mx1.example.test")}, "mx1.example.test", "tls"},
		"implicit-MX":           {[]string{"example.test"}, policy.Facts{Host: domain.MustParse("example.test"), Recipient: domain.MustParse("example.test")}, "example.test", "tls"},
		"parent-is-not-enough":  {[]string{"test"}, policy.Facts{Host: domain.MustParse("mx1.example.test"), Recipient: domain.MustParse("example.test")}, "mx1.example.test", "block"},
		"address-is-not-a-name": {[]string{"ADDRESS"}, policy.Facts{Host: domain.MustParse("mx1.example.test")}, "mx1.example.test", "block"},
	} {
		t.Run("name/"+name, func(t *testing.T) {
			// The certificate may name the address, which is known only once
			// the host listens.
			h := w.Host(t, "mx1.example.test")
			address := h.Addr().Addr().String()
			var names []string
			for _, n := range c.cert {
				names = append(names, strings.ReplaceAll(n, "ADDRESS", address))
			}
			if err := h.SetScript(relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: names}}}); err != nil {
				t.Fatal(err)
			}
			facts := c.facts
			facts.Literal = strings.ReplaceAll(facts.Literal, "ADDRESS", address)
			host := hostAt("mx1.example.test", h.Addr())
			host.Facts, host.SNI = facts, c.sni
			r := deliverOne(t, engine(t, w, resolve.Route{Hosts: []resolve.Host{host}}), modeV, c.fate)
			if got := h.Sessions()[0].Hello.ServerName; got != c.sni {
				t.Errorf("asked for %q, want %q", got, c.sni)
			}
			if s := r.Attempt.Hosts[0].TLS; (s.Cert.Matched != "") != (c.fate == "tls") {
				t.Errorf("matched %q", s.Cert.Matched)
			}
		})
	}
}

// TestCompatHelloUnderFloor: the compat hello keeps to the floor, also where
// that leaves TLS 1.3 alone.
func TestCompatHelloUnderFloor(t *testing.T) {
	w := relaytest.Start(t)
	for least, want := range map[policy.Version]string{policy.TLS11: "1.2", policy.TLS12: "1.2", policy.TLS13: "1.3"} {
		h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Reset, HelloOver: 1000}})
		r := deliverOne(t, engine(t, w, routeTo(h)), floor(least), "tls")
		if got := r.Outcomes[0].Session.TLSVersion; got != want {
			t.Errorf("floor %s: %s, want %s", least, got, want)
		}
	}
}

// playHost answers the commands of one connection in clear until f takes one
// over; f reports whether it did, false ends the connection.
func playHost(c net.Conn, keywords string, f func(in *bufio.Reader, line string) (mine, alive bool)) {
	in := bufio.NewReader(c)
	io.WriteString(c, "220 mx1.example.test\r\n")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		if mine, alive := f(in, line); mine {
			if !alive {
				return
			}
			continue
		}
		switch {
		case strings.HasPrefix(line, "EHLO"):
			io.WriteString(c, "250-hello\r\n250 "+keywords+"\r\n")
		case strings.HasPrefix(line, "QUIT"):
			return
		default:
			io.WriteString(c, "250 ok\r\n")
		}
	}
}

// TestGoodbyeWhileIdle: a 421 that lies waiting on an idle session is not
// taken for the answer to the next MAIL.
func TestGoodbyeWhileIdle(t *testing.T) {
	addr := rawHost(t, func(c net.Conn) {
		playHost(c, "SIZE", func(in *bufio.Reader, line string) (bool, bool) {
			if !strings.HasPrefix(line, "DATA") {
				return false, true
			}
			io.WriteString(c, "354 go\r\n")
			for err := error(nil); line != ".\r\n" && err == nil; {
				line, err = in.ReadString('\n')
			}
			io.WriteString(c, "250 taken\r\n421 too long idle\r\n")
			return true, true
		})
	})
	route := resolve.Route{Hosts: []resolve.Host{hostAt("mx1.example.test", addr)}}
	e := engine(t, relaytest.Start(t), route)
	deliverOne(t, e, modeO, "clear")
	deliverOne(t, e, modeO, "clear")
}

// TestRefusalWithoutHangup: a refusal in mid-message is noticed although the
// host neither hangs up nor reads on: between two chunks or, where the last
// one is stuck in the kernel by then, when the timeout ends it.
func TestRefusalWithoutHangup(t *testing.T) {
	left := make(chan struct{})
	addr := rawHost(t, func(c net.Conn) {
		playHost(c, "SIZE", func(in *bufio.Reader, line string) (bool, bool) {
			if !strings.HasPrefix(line, "DATA") {
				return false, true
			}
			io.WriteString(c, "354 go\r\n")
			io.CopyN(io.Discard, in, 64<<10)
			io.WriteString(c, "552 5.3.4 that will do\r\n")
			io.CopyN(io.Discard, in, 256<<10) // a little more, so that the writer goes on
			<-left                            // not reading
			return true, false
		})
	})
	job := jobTo(t, modeO)
	job.Body = body(bytes.Repeat([]byte("0123456789\r\n"), 1<<20))
	route := resolve.Route{Hosts: []resolve.Host{hostAt("mx1.example.test", addr)}}
	r := engine(t, relaytest.Start(t), route, hasty).Deliver(context.Background(), job)
	close(left)
	if f := failureOf(r); f.Status != "5.3.4" {
		t.Errorf("%+v", f)
	}
}
