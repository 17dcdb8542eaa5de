package submission

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/relay"
)

// go-smtp leaves some defences to its users. Each test of this file stands for one
// of them, and fails without it.

func TestTrap1StalledDataIsNotReadAsCommands(t *testing.T) {
	t.Parallel()
	w := start(t, func(o *Options) { o.IdleTimeout = time.Second })
	for _, chunked := range []bool{false, true} {
		c := w.ready()
		c.envelope()
		if chunked {
			c.send("BDAT 10000 LAST\r\nSubject: a\r\n")
		} else {
			c.cmd("354", "DATA")
			c.send("Subject: a\r\n")
		}
		c.expect("421 4.4.2")
		// Whether or not the socket takes it, this must reach nobody.
		_, _ = io.WriteString(c.Conn, "MAIL FROM:<x@x.example>\r\nRCPT TO:<y@y.example>\r\nDATA\r\nX: y\r\n.\r\n")
		_, _ = io.ReadAll(c.r)
	}
	waitFor(t, "drafts ended", func() bool { return w.in.drafts() == 0 })
	if got := w.in.all(); len(got) != 0 {
		t.Fatalf("accepted %d messages", len(got))
	}
}

func TestTrap2SlowButSteadyContentIsAccepted(t *testing.T) {
	t.Parallel()
	const idle = 2 * time.Second
	w := start(t, func(o *Options) { o.IdleTimeout = idle })
	c := w.dialTLS()
	c.cmd("250", "EHLO client.example")
	c.auth()
	c.envelope()
	c.cmd("354", "DATA")
	tick := time.NewTicker(idle / 4)
	defer tick.Stop()
	for range 6 { // one and a half idle times in all
		c.send("X-Slow: yes\r\n")
		<-tick.C
	}
	c.send("\r\nbody\r\n.\r\n")
	c.expect("250 2.0.0 Ok: queued as ")
}

func TestTrap3AddressesKeepTheirQuotesAndAreChecked(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	c.cmd("250", "MAIL FROM:<"+strings.Repeat("s", 200)+"@sender.example>") // VERP, SRS
	c.cmd("250", "RSET")
	c.cmd("250", `MAIL FROM:<"a b"@sender.example>`)
	for _, tt := range []struct{ path, want string }{
		{`<"victim@evil.test> NOTIFY=NEVER "@ok.test>`, "250 2.1.5"},
		{"<plain@ok.test>", "250 2.1.5"},
		{"<a@b@ok.test>", "501 5.1.3"},
		{"<a..b@ok.test>", "501 5.1.3"},
		{"<a@x..y>", "501 5.1.3"},
		{"<a\x01b@ok.test>", "501 5.1.3"},
		{"<\"a\x00b\"@ok.test>", "501 5.1.3"},
		{"<\"a\rb\"@ok.test>", "501 5.1.3"},
		{"<a@ok\x7f.test>", "501 5.1.3"},
		{"<\xff\xfe@ok.test>", "501 5.1.3"},
		{"<grüße@ok.test>", "553 5.6.7"},
		{"<somebody>", "501 5.1.3 Bad recipient address syntax: <local@domain> is needed"},
		{"<@hop..test:a@ok.test>", "501 5.1.3"},
		{"<>", "501 5.1.3"},
		{"<a@192.0.2.1>", "501 5.1.3"},
		{"<a@[192.0.2.1]>", "250 2.1.5"},
		{"<" + strings.Repeat("l", 65) + "@ok.test>", "501 5.1.3"},
	} {
		t.Run(tt.path, func(t *testing.T) {
			c.t = t
			c.cmd(tt.want, "RCPT TO:"+tt.path)
		})
	}
	c.t = t
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect("250")
	got := w.in.all()[0]
	if s := got.m.From.String(); s != `"a b"@sender.example` {
		t.Errorf("from %s", s)
	}
	if s := got.rcpts[0].Address.String(); s != `"victim@evil.test> NOTIFY=NEVER "@ok.test` || got.rcpts[0].Notify != 0 {
		t.Errorf("recipient %s %v", s, got.rcpts[0].Notify)
	}
}

func TestTrap4SecondMailIsRefused(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	c.envelope()
	c.cmd("503 5.5.1", "MAIL FROM:<other@sender.example>")
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect("250")
	if got := w.in.all()[0]; got.m.From.String() != "a@sender.example" || len(got.rcpts) != 1 {
		t.Errorf("accepted from %s to %d", got.m.From, len(got.rcpts))
	}
}

func TestTrap5RequireTLSOnlyOverTLS(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	if r := c.cmd("250", "EHLO client.example"); strings.Contains(r, "REQUIRETLS") {
		t.Errorf("offered in clear: %s", r)
	}
	c.cmd("530 5.7.10", "MAIL FROM:<a@sender.example> REQUIRETLS")

	c = w.dialTLS()
	if r := c.cmd("250", "EHLO client.example"); !strings.Contains(r, "REQUIRETLS") || strings.Contains(r, "STARTTLS") {
		t.Errorf("over TLS: %s", r)
	}
	c.auth()
	c.cmd("250", "MAIL FROM:<a@sender.example> REQUIRETLS")
	c.cmd("250", "RCPT TO:<b@rcpt.example>")
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect("250")
	if !w.in.all()[0].m.RequireTLS {
		t.Error("not kept")
	}
}

func TestTrap6ErrorsAreTemporaryAndSaySoWithoutInnerText(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{errors.New("pebble: secret inner text"), "451 4.3.0 The message could not be stored, try again later"},
		{fmt.Errorf("commit: %w", relay.ErrNoSpace), "452 4.3.1 Insufficient storage, try again later"},
		{fmt.Errorf("wrapped: %w", &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"}), "452 4.2.2 full"},
	} {
		for _, chunked := range []bool{false, true} {
			for _, writing := range []bool{false, true} {
				w := start(t, nil)
				if writing {
					w.in.write = tt.err
				} else {
					w.in.fail = tt.err
				}
				c := w.ready()
				var got string
				if chunked {
					c.envelope()
					c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(simple), simple))
					got = c.reply()
				} else {
					got = c.data(simple)
				}
				if got != tt.want {
					t.Errorf("%v, chunked %v, writing %v: %q", tt.err, chunked, writing, got)
				}
				c.cmd("250", "NOOP")
			}
		}
	}
}

func TestTrap7LongLinesInChunksAndContent(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	body := "Subject: a\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n"
	c.send(fmt.Sprintf("MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@rcpt.example>\r\nBDAT %d LAST\r\n%s", len(body), body))
	c.expect("250")
	c.expect("250")
	c.expect("250 2.0.0 Ok: queued as ")
	if got := c.data(strings.TrimSuffix(body, "\r\n")); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	for _, a := range w.in.all() {
		if !strings.HasSuffix(a.body, body[len("Subject: a\r\n"):]) {
			t.Error("body changed")
		}
	}
	// While a command has its bound.
	c = w.dial()
	c.send("EHLO " + strings.Repeat("x", 12288))
	c.expect("500 5.5.2 Line too long")
	_, _ = io.ReadAll(c.r)
	// Which leaves room for what RFC 4954 promises to AUTH.
	c = w.dial()
	c.cmd("250", "EHLO client.example")
	c.cmd("535 5.7.8", "AUTH PLAIN "+plainResponse("apikey", strings.Repeat("x", 9000)))
}

func TestTrap8ExactlyTheSizeThatIsOffered(t *testing.T) {
	const limit = 5000
	w := start(t, func(o *Options) { o.MaxMessageBytes = limit })
	head := "Subject: a\r\n\r\n"
	exact := head + strings.Repeat("x", limit-len(head)-2) // and CRLF
	c := w.ready()
	if got := c.data(exact); !strings.HasPrefix(got, "250") {
		t.Errorf("exact size: %s", got)
	}
	if got := c.data(exact + "x"); !strings.HasPrefix(got, "552 5.3.4") {
		t.Errorf("one more: %s", got)
	}
	// A stuffed dot does not count (RFC 1870 §3).
	if got := c.data(head + ".." + exact[len(head)+1:]); !strings.HasPrefix(got, "250") {
		t.Errorf("with a stuffed dot: %s", got)
	}
	c.envelope()
	c.send(fmt.Sprintf("BDAT %d LAST\r\n%s\r\n", limit, exact))
	c.expect("250")
	c.envelope()
	c.send(fmt.Sprintf("BDAT %d LAST\r\n%sx\r\n", limit+1, exact))
	c.expect("552 5.3.4")
	c.cmd("250", fmt.Sprintf("MAIL FROM:<a@sender.example> SIZE=%d", limit))
	c.cmd("250", "RSET")
	c.cmd("552 5.3.4", fmt.Sprintf("MAIL FROM:<a@sender.example> SIZE=%d", limit+1))
	c.cmd("552 5.3.4", "MAIL FROM:<a@sender.example> SIZE=4294967296")
	c.cmd("552 5.3.4", "MAIL FROM:<a@sender.example> size=99999999999999999999")
	c.cmd("501 5.5.4", "MAIL FROM:<a@sender.example> SIZE=999999999999999999999")
	c.cmd("501 5.5.4", "MAIL FROM:<a@sender.example> SIZE=x")
}

func TestTrap8EndlessDataIsCutOff(t *testing.T) {
	w := start(t, func(o *Options) { o.MaxMessageBytes = 1000 })
	c := w.ready()
	c.envelope()
	c.cmd("354", "DATA")
	junk := []byte(strings.Repeat("x", 1<<16))
	for range 1000 {
		if _, err := c.Write(junk); err != nil {
			return
		}
	}
	t.Error("64 MiB were read for a bound of 1000 octets")
}

func TestTrap9StoppingTellsIdleClients(t *testing.T) {
	w := start(t, nil)
	idle := []*client{w.dial(), w.ready(), w.dialTLS()}
	c := w.ready()
	c.envelope()
	silent := w.raw(w.srv.AddrsTLS()[0]) // in the handshake
	w.stop()
	for _, c := range idle {
		c.expect("421 4.3.2 " + host)
		c.closed()
	}
	silent.closed()
	if _, err := net.Dial("tcp", w.srv.Addrs()[0].String()); err == nil {
		t.Error("still listening")
	}
	// The transaction goes on, and is the last one.
	c.cmd("250", "RCPT TO:<c@rcpt.example>")
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\nMAIL FROM:<a@sender.example>\r\n")
	c.expect("250 2.0.0 Ok: queued as ")
	c.expect("421 4.3.2 " + host)
	c.closed()
	if got := w.in.all(); len(got) != 1 || len(got[0].rcpts) != 2 {
		t.Errorf("accepted %v", got)
	}
}

func TestTrap9StoppingDoesNotWaitForever(t *testing.T) {
	w := start(t, func(o *Options) { o.DrainTimeout = 50 * time.Millisecond })
	stalled := w.ready()
	stalled.envelope()
	stalled.cmd("354", "DATA")
	stalled.send("Subject: never ends\r\n")
	chunk := w.ready()
	chunk.envelope()
	chunk.send("BDAT 4\r\nA: b")
	chunk.expect("250")
	w.in.hold = make(chan struct{}) // never opened
	stuck := w.ready()
	stuck.envelope()
	stuck.cmd("354", "DATA")
	stuck.send(simple + "\r\n.\r\n")
	waitFor(t, "drafts", func() bool { return w.in.drafts() == 2 })
	w.stop()
	stalled.closed()
	chunk.closed()
	if err := <-w.done; err != nil {
		t.Error(err)
	}
	w.done <- nil
	if got := w.in.all(); len(got) != 0 {
		t.Errorf("accepted %d", len(got))
	}
}

func TestTrap10ResetBesideARunningBodyDoesNotDeadlock(t *testing.T) {
	w := start(t, nil)
	for _, end := range []string{"RSET\r\n", "EHLO again.example\r\n", "QUIT\r\n", "STARTTLS\r\n", ""} {
		c := w.ready()
		c.envelope()
		c.send("BDAT 4\r\nA: b")
		c.expect("250 2.0.0 Continue")
		c.send(end)
		switch end {
		case "RSET\r\n", "EHLO again.example\r\n":
			c.expect("250")
			if got := c.data(simple); !strings.HasPrefix(got, "250") {
				t.Errorf("after %q: %s", end, got)
			}
		case "STARTTLS\r\n":
			c.expect("220")
			c.secure()
			c.cmd("503 5.5.1", "MAIL FROM:<a@sender.example>")
		case "":
			c.Close()
		default:
			c.expect("221")
		}
	}
	waitFor(t, "drafts ended", func() bool { return w.in.drafts() == 0 })
	if got := w.in.all(); len(got) != 2 {
		t.Errorf("accepted %d", len(got))
	}
}

func TestTrap11FailedHandshakeClosesTheConnection(t *testing.T) {
	w := start(t, nil)
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	c.cmd("220", "STARTTLS")
	c.send("EHLO not-a-client-hello\r\nNOOP\r\n")
	all, _ := io.ReadAll(c.r)
	if strings.Contains(string(all), "250") || strings.Contains(string(all), "550") {
		t.Errorf("went on in clear: %q", all)
	}
	waitFor(t, "place given back", func() bool {
		return w.taken() == 0
	})
}

func TestTrap12AuthParameterGoesNowhere(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	w := start(t, nil)
	w.srv.log = zap.New(core)
	c := w.ready()
	c.cmd("250", "MAIL FROM:<a@sender.example> AUTH=x+0D+0Ay@z.test")
	c.cmd("250", "RCPT TO:<b@rcpt.example>")
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect("250")
	if got := w.in.all()[0]; strings.Contains(got.body, "z.test") {
		t.Error("in the message")
	}
	for _, e := range logs.All() {
		if strings.Contains(fmt.Sprint(e), "z.test") {
			t.Error("in the log")
		}
	}
}

func TestTrap13EHLOBeginsWithOurName(t *testing.T) {
	w := start(t, nil)
	for _, c := range []*client{w.dial(), w.dialTLS()} {
		got := c.cmd("250-"+host+"|", "EHLO client.example")
		if strings.Contains(got, "client.example") {
			t.Errorf("greets the client by its name: %q", got)
		}
	}
}

// tap keeps what arrives below TLS.
type tap struct {
	net.Conn
	seen []byte
}

func (p *tap) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.seen = append(p.seen, b[:n]...)
	return n, err
}

// records counts the TLS records (RFC 8446 §5.1) that arrived since the last
// call. Unlike packets they do not merge on the way.
func (p *tap) records() int {
	n := 0
	for len(p.seen) >= 5 {
		p.seen = p.seen[5+int(p.seen[3])<<8+int(p.seen[4]):]
		n++
	}
	p.seen = nil
	return n
}

func TestTrap14RepliesTravelTogether(t *testing.T) {
	w := start(t, nil)
	c := w.raw(w.srv.AddrsTLS()[0])
	wire := &tap{Conn: c.Conn}
	c.Conn = wire
	c.secure()
	c.expect("220")
	wire.records()
	c.cmd("250", "EHLO client.example")
	if n := wire.records(); n != 1 {
		t.Errorf("EHLO is answered in %d records", n)
	}
	c.auth()
	wire.records()
	c.send("MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@rcpt.example>\r\nRCPT TO:<c@rcpt.example>\r\nDATA\r\n")
	for _, want := range []string{"250", "250", "250", "354"} {
		c.expect(want)
	}
	if n := wire.records(); n != 1 {
		t.Errorf("four pipelined commands are answered in %d records", n)
	}
	c.send(simple + "\r\n.\r\n")
	c.expect("250")
}

// go-smtp takes the end of the connection for the end of the chunk.
func TestConnectionLostInTheLastChunkAcceptsNothing(t *testing.T) {
	w := start(t, nil)
	for range 10 {
		c := w.ready()
		c.envelope()
		c.send("BDAT 1000 LAST\r\n" + simple)
		c.Close()
	}
	for _, content := range []string{"", simple, simple + "\r\n.", simple + "\r\n.\r"} {
		c := w.ready()
		c.envelope()
		c.cmd("354", "DATA")
		c.send(content)
		c.Close()
	}
	waitFor(t, "all connections gone", func() bool {
		return w.taken() == 0
	})
	if got := w.in.all(); len(got) != 0 {
		t.Errorf("accepted %d truncated messages", len(got))
	}
}
