package relaytest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"
)

// send delivers one message with the standard library's client, over TLS
// when the host lists STARTTLS.
func send(t *testing.T, w *World, h *Host, cfg *tls.Config) error {
	t.Helper()
	c, err := smtp.Dial(h.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Hello("relay.test"); err != nil {
		return err
	}
	if ok, _ := c.Extension("STARTTLS"); ok {
		if cfg == nil {
			cfg = &tls.Config{RootCAs: w.CA.Pool(), ServerName: h.Name()}
		}
		if err := c.StartTLS(cfg); err != nil {
			return err
		}
	}
	if err := c.Mail("a@sender.test"); err != nil {
		return err
	}
	if err := c.Rcpt("b@example.test"); err != nil {
		return err
	}
	body, err := c.Data()
	if err != nil {
		return err
	}
	io.WriteString(body, "Subject: hi\r\n\r\n.dot\r\n..two\r\n")
	if err := body.Close(); err != nil {
		return err
	}
	return c.Quit()
}

func TestHealthyHost(t *testing.T) {
	w := Start(t)
	h := w.Host(t, "mx1.example.test")
	cfg := &tls.Config{RootCAs: w.CA.Pool(), ServerName: h.Name(), ClientSessionCache: tls.NewLRUClientSessionCache(2)}
	for range 2 {
		if err := send(t, w, h, cfg); err != nil {
			t.Fatal(err)
		}
	}
	got := h.Await(t, 2)
	m := got[0]
	if m.From != "a@sender.test" || m.To[0].Address != "b@example.test" || m.Helo != "relay.test" ||
		string(m.Body) != "Subject: hi\r\n\r\n.dot\r\n..two\r\n" || m.TLSVersion != tls.VersionTLS13 {
		t.Errorf("message: %+v", m)
	}
	if m.Resumed || !got[1].Resumed || h.Resumed() != 1 {
		t.Errorf("resumed: %v, %v; host counted %d", m.Resumed, got[1].Resumed, h.Resumed())
	}
	if h.LeakedInClear() {
		t.Error("transaction seen in clear")
	}
	want := []string{"EHLO", "STARTTLS", "EHLO", "STARTTLS"}
	if c := h.ClearCommands(); !slices.Equal(c, want) {
		t.Errorf("clear commands %q", c)
	}
	if b := h.Breaches(); len(b) > 0 {
		t.Errorf("breaches %q", b)
	}
	if s := h.Sessions()[0]; s.Hello.ServerName != h.Name() || s.Hello.Size < 1000 || s.TLS == nil {
		t.Errorf("session %+v", s)
	}
}

func TestClearHostLeaks(t *testing.T) {
	w := Start(t)
	h := w.Host(t, "mx1.example.test", Script{NoTLS: true})
	if err := send(t, w, h, nil); err != nil {
		t.Fatal(err)
	}
	if !h.LeakedInClear() || h.Await(t, 1)[0].TLSVersion != 0 {
		t.Error("a message in clear went unnoticed")
	}
}

// converse writes lines to a fresh connection, one write each, and gives all
// the host said until it closed or went silent for a moment.
func converse(t *testing.T, h *Host, lines ...string) string {
	t.Helper()
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, l := range lines {
		if _, err := io.WriteString(c, l+"\r\n"); err != nil {
			return "write: " + err.Error()
		}
	}
	c.(*net.TCPConn).CloseWrite()
	c.SetReadDeadline(time.Now().Add(Patience))
	b, err := io.ReadAll(io.LimitReader(c, 1<<20))
	if err != nil {
		return string(b) + "read: " + err.Error()
	}
	return string(b)
}

func TestReplies(t *testing.T) {
	hi := "220 mx1.example.test ESMTP relaytest\r\n"
	helo := "250 mx1.example.test\r\n"
	mail := []string{"HELO x", "MAIL FROM:<a@b.test>", "RCPT TO:<c@example.test>"}
	ok := hi + helo + "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
	for _, c := range []struct {
		name   string
		script Script
		lines  []string
		want   string
	}{
		{"greeting 421 closes", Script{Greeting: Reply{Code: 421, Text: "4.3.2 later"}}, []string{"HELO x"}, "421 4.3.2 later\r\n"},
		{"greeting 554 waits for QUIT", Script{Greeting: Reply{Code: 554, Text: "no"}}, []string{"QUIT"}, "554 no\r\n221 2.0.0 Bye\r\n"},
		{"no banner", Script{Greeting: Reply{Do: Close}}, nil, ""},
		{"EHLO unknown", Script{EHLO: Reply{Code: 502, Text: "what"}}, []string{"EHLO x", "HELO x"}, hi + "502 what\r\n" + helo},
		{"lower case starttls", Script{StartTLSAs: "starttls", Keywords: []string{"SIZE 7"}}, []string{"EHLO x"},
			hi + "250-mx1.example.test greets x\r\n250-SIZE 7\r\n250 starttls\r\n"},
		{"no keywords at all", Script{NoTLS: true, Keywords: []string{}}, []string{"EHLO x"}, hi + "250 mx1.example.test greets x\r\n"},
		{"STARTTLS refused", Script{StartTLS: Reply{Code: 454, Text: "4.7.0 not now"}}, []string{"STARTTLS"}, hi + "454 4.7.0 not now\r\n"},
		{"STARTTLS unknown", Script{NoTLS: true}, []string{"STARTTLS"}, hi + "502 5.5.1 Command not implemented\r\n"},
		{"injection", Script{Inject: "250 evil\r\n"}, []string{"STARTTLS"}, hi + "220 2.0.0 Ready to start TLS\r\n250 evil\r\n"},
		{"needs TLS", Script{NeedTLS: true}, mail[:2], hi + helo + "530 5.7.0 Must issue a STARTTLS command first\r\n"},
		{"recipients apart", Script{Rcpts: map[string]Reply{"c@example.test": {Code: 550, Text: "5.1.1 no\n5.1.1 such user"}}},
			append(mail, "RCPT TO:<d@example.test>"), hi + helo + "250 2.1.0 Ok\r\n550-5.1.1 no\r\n550 5.1.1 such user\r\n250 2.1.5 Ok\r\n"},
		{"too many recipients", Script{MaxRcpt: 1}, append(mail, "RCPT TO:<d@example.test>"), ok + "452 4.5.3 Too many recipients\r\n"},
		{"twice, then well", Script{Rcpt: Reply{Code: 450, Text: "grey", Times: 1}}, append(mail, "RCPT TO:<d@example.test>"),
			hi + helo + "250 2.1.0 Ok\r\n450 grey\r\n250 2.1.5 Ok\r\n"},
		{"end refused", Script{End: Reply{Code: 554, Text: "5.7.1 spam"}}, append(mail, "DATA", "x", "."),
			ok + "354 End data with <CR><LF>.<CR><LF>\r\n554 5.7.1 spam\r\n"},
		{"closes at the end", Script{End: Reply{Do: Close}}, append(mail, "DATA", "x", "."), ok + "354 End data with <CR><LF>.<CR><LF>\r\n"},
		{"body too big", Script{BodyLimit: 3}, append(mail, "DATA", "xxxxx", "yyyyy"),
			ok + "354 End data with <CR><LF>.<CR><LF>\r\n552 5.3.4 Message too big\r\n"},
		{"unlisted parameter", Script{}, []string{"HELO x", "MAIL FROM:<a@b.test> SIZE=3"}, hi + helo + "555 5.5.4 Unsupported option: SIZE\r\n"},
		{"quoted path", Script{}, []string{"HELO x", `MAIL FROM:<"a> SIZE=1"@b.test>`}, hi + helo + "250 2.1.0 Ok\r\n"},
		{"raw", Script{Greeting: Reply{Raw: "oops\n"}}, nil, "oops\n"},
		{"drip", Script{Greeting: Reply{Do: Drip, Pace: time.Microsecond, Hangup: true}}, nil, hi},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := Start(t)
			h := w.Host(t, "mx1.example.test", c.script)
			if got := converse(t, h, c.lines...); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

func TestBadEnds(t *testing.T) {
	w := Start(t)
	reset := w.Host(t, "reset.example.test", Script{HELO: Reply{Do: Reset}})
	if got := converse(t, reset, "HELO x"); !strings.Contains(got, "reset") {
		t.Errorf("reset: %q", got)
	}
	endless := w.Host(t, "endless.example.test", Script{EHLO: Reply{Do: Endless}})
	if got := converse(t, endless, "EHLO x"); len(got) < 1<<20 {
		t.Errorf("endless reply ended after %d octets", len(got))
	}
	dead := w.AddDeadHost("dead.example.test")
	if c, err := net.Dial("tcp", dead.String()); err == nil {
		c.Close()
		t.Error("a dead host answered")
	}
	// A silent host ends with the world, not before: the cleanup would hang.
	silent := w.Host(t, "silent.example.test", Script{Greeting: Reply{Do: Stall}})
	c, err := net.Dial("tcp", silent.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a silent host spoke")
	}
}

func TestPipeliningAndChunks(t *testing.T) {
	w := Start(t)
	h := w.Host(t, "mx1.example.test", Script{NoTLS: true})
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	expect := func(prefix string) {
		t.Helper()
		for {
			line, err := r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, prefix) {
				t.Fatalf("got %q, %v; want %s", line, err, prefix)
			}
			if line[3] == ' ' {
				return
			}
		}
	}
	expect("220")
	io.WriteString(c, "EHLO x\r\n")
	expect("250")
	io.WriteString(c, "MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<c@example.test> NOTIFY=NEVER\r\nBDAT 4\r\nab\r\nBDAT 2 LAST\r\n.\n")
	for range 4 {
		expect("250")
	}
	m := h.Await(t, 1)[0]
	if string(m.Body) != "ab\r\n.\n" || !m.Chunked || m.From != "" || m.To[0].Params[0] != "NOTIFY=NEVER" {
		t.Errorf("message %+v", m)
	}
	if b := h.Breaches(); len(b) > 0 {
		t.Errorf("breaches %q", b)
	}
}

func TestHandshakes(t *testing.T) {
	alert := func(want string) func(error) bool {
		return func(err error) bool { return err != nil && strings.Contains(err.Error(), want) }
	}
	fine := func(err error) bool { return err == nil }
	for _, c := range []struct {
		name   string
		tls    TLS
		client func(*tls.Config)
		want   func(error) bool
	}{
		{"1.0 only", TLS{MaxVersion: tls.VersionTLS10}, nil, alert("protocol version not supported")},
		{"1.0 only, wide client", TLS{MaxVersion: tls.VersionTLS10}, func(c *tls.Config) { c.MinVersion = tls.VersionTLS10 }, fine},
		{"RSA key exchange", TLS{Cert: &Cert{Names: []string{"mx1.example.test"}, Key: KeyRSA2048}, MaxVersion: tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}, nil, alert("handshake failure")},
		{"alert 80", TLS{Alert: 80}, nil, alert("internal error")},
		{"alert 112 with SNI", TLS{Alert: 112, WithSNI: true}, nil, alert("unrecognized name")},
		{"alert 112 without SNI", TLS{Alert: 112, WithSNI: true}, func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true }, fine},
		{"close", TLS{Do: Close}, nil, func(err error) bool { return errors.Is(err, io.EOF) }},
		{"reset", TLS{Do: Reset}, nil, alert("reset")},
		{"garbage", TLS{Garbage: "500 what?\r\n"}, nil, alert("first record does not look like a TLS handshake")},
		{"long hello", TLS{Do: Close, HelloOver: 1000}, nil, func(err error) bool { return errors.Is(err, io.EOF) }},
		{"short hello", TLS{Do: Close, HelloOver: 1000}, func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, fine},
		{"too new hello", TLS{Do: Close, VersionOver: tls.VersionTLS10}, nil, func(err error) bool { return errors.Is(err, io.EOF) }},
		{"old enough hello", TLS{Do: Close, VersionOver: tls.VersionTLS10}, func(c *tls.Config) { c.MinVersion = tls.VersionTLS10 }, fine},
		{"no ticket yet", TLS{Do: Close, WithTicket: true}, nil, fine},
		{"downgrade", TLS{Downgrade: true}, nil, alert("downgrade")},
		{"client certificate", TLS{ClientCert: true}, nil, alert("certificate required")},
		{"raw", TLS{Raw: []byte{21, 3, 1, 0, 2, 2, 40}}, nil, alert("handshake failure")},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := Start(t)
			h := w.Host(t, "mx1.example.test", Script{TLS: c.tls})
			cfg := &tls.Config{RootCAs: w.CA.Pool(), ServerName: h.Name()}
			if c.client != nil {
				c.client(cfg)
			}
			if err := send(t, w, h, cfg); !c.want(err) {
				t.Errorf("got %v", err)
			}
			if h.LeakedInClear() {
				t.Error("transaction seen in clear")
			}
		})
	}
}

// What a host does with tickets, and in sessions that were resumed.
func TestResumedSessions(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		w := Start(t)
		h := w.Host(t, "mx1.example.test", Script{Resumed: &Script{Mail: Reply{Code: 554}}})
		cfg := &tls.Config{
			RootCAs: w.CA.Pool(), ServerName: h.Name(), MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		if err := send(t, w, h, cfg); err != nil {
			t.Fatal(err)
		}
		if err := send(t, w, h, cfg); err == nil || !strings.Contains(err.Error(), "554") || h.Resumed() != 1 {
			t.Errorf("%x: %v, %d resumed", version, err, h.Resumed())
		}
		if err := h.SetScript(Script{TLS: TLS{Alert: 80, WithTicket: true}}); err != nil {
			t.Fatal(err)
		}
		if err := send(t, w, h, cfg); err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("%x: %v", version, err)
		}
		if s := h.Sessions(); s[0].Hello.Ticket || !s[1].Hello.Ticket || !s[2].Hello.Ticket {
			t.Errorf("%x: %+v", version, s)
		}
	}
}

func TestScriptsInTurn(t *testing.T) {
	w := Start(t)
	h := w.Host(t, "mx1.example.test", Script{Greeting: Reply{Code: 421}}, Script{})
	if err := send(t, w, h, nil); err == nil {
		t.Error("first connection was served")
	}
	if err := send(t, w, h, nil); err != nil {
		t.Error(err)
	}
}

func BenchmarkSink(b *testing.B) {
	w, err := NewWorld()
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	h, err := w.AddHost("mx1.example.test", Script{NoTLS: true, Discard: true})
	if err != nil {
		b.Fatal(err)
	}
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	line := strings.Repeat("x", 76) + "\r\n"
	msg := []byte("MAIL FROM:<a@b.test>\r\nRCPT TO:<c@example.test>\r\nDATA\r\n" + strings.Repeat(line, 130) + ".\r\n")
	r := bufio.NewReader(c)
	io.WriteString(c, "EHLO x\r\n")
	for range 2 + len(DefaultKeywords) {
		r.ReadSlice('\n')
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(msg)))
	for b.Loop() {
		c.Write(msg)
		for range 4 {
			if _, err := r.ReadSlice('\n'); err != nil {
				b.Fatal(err)
			}
		}
	}
}
