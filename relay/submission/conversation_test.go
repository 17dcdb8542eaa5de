package submission

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

func TestRepliesOfTheContract(t *testing.T) {
	w := start(t, nil)
	c := w.raw(w.srv.Addrs()[0])
	for _, step := range []struct{ send, want string }{
		{"", "220 relay.example ESMTP service ready"},
		{"MAIL FROM:<a@b.example>", "503 5.5.1 Bad sequence of commands"},
		{"HELO client.example", "250 relay.example"},
		{"EHLO client.example", "250-relay.example|250-PIPELINING|250-8BITMIME|250-SMTPUTF8|250-SIZE 31457280|" +
			"250-CHUNKING|250-DSN|250-STARTTLS|250-AUTH PLAIN LOGIN|250 ENHANCEDSTATUSCODES"},
		{"MAIL FROM:<a@b.example>", "530 5.7.0 Unauthenticated senders not allowed: say STARTTLS first, then AUTH"},
		{"RCPT TO:<a@b.example>", "503 5.5.1 Bad sequence of commands"},
		{"AUTH", "501 5.5.4 AUTH needs a mechanism"},
		{"AUTH CRAM-MD5", "504 5.7.4 Unsupported authentication mechanism"},
		{"AUTH PLAIN !!!", "501 5.5.2 Not base64"},
		{"AUTH PLAIN AAA=", "535 5.7.8 Authentication failed: Bad username / password"},
		{"AUTH PLAIN " + b64("x"), "501 5.5.2 Malformed PLAIN response"},
		{"AUTH PLAIN " + plainResponse("root", w.secret), "535 5.7.8 Authentication failed: Bad username / password"},
		{"AUTH PLAIN " + b64("other\x00apikey\x00"+w.secret), "535 5.7.8 Authentication failed: Bad username / password"},
		{"AUTH PLAIN " + plainResponse("apikey", account.NewSecret()), "535 5.7.8 Authentication failed: The provided authorization grant is invalid, expired, or revoked"},
		{"AUTH LOGIN", "334 VXNlcm5hbWU6"},
		{b64("apikey"), "334 UGFzc3dvcmQ6"},
		{"*", "501 5.7.0 Authentication cancelled"},
		{"AUTH LOGIN", "334 VXNlcm5hbWU6"},
		{b64("apikey"), "334 UGFzc3dvcmQ6"},
		{b64(w.secret), "235 2.7.0 Authentication successful"},
		{"AUTH LOGIN", "503 5.5.1 Already authenticated"},
		{"MAIL FROM:a", "501 5.1.7 Bad sender address syntax"},
		{"MAIL FROM:<a@b..example>", "501 5.1.7 Bad sender address syntax"},
		{"MAIL FROM:<a@b.example> FOO=1", "555 5.5.4 Parameter not recognized or malformed"},
		{"MAIL FROM:<a@b.example> BODY=BINARYMIME", "504 5.5.4 BINARYMIME is not implemented"},
		{"MAIL FROM:<a@b.example> SIZE=100 BODY=8BITMIME", "250 2.1.0 Sender address accepted"},
		{"AUTH LOGIN", "503 5.5.1 Already authenticated"},
		{"DATA", "503 5.5.1 No valid recipients"},
		{"RCPT TO:<b@c.example> NOTIFY=NEVER,DELAY", "501 5.5.4 Malformed NOTIFY parameter value"},
		{"RCPT TO:<b@c.example>", "250 2.1.5 Recipient address accepted"},
		{"DATA", "354 Continue"},
		{simple + "\r\n.", "250 2.0.0 Ok: queued as "},
		{"NOOP", "250 2.0.0 "},
		{"VRFY a", "252 2.5.0 "},
		{"RSET", "250 2.0.0 "},
		{"EXPN a", "502 5.5.1 "},
		{"XYZZ", "500 5.5.2 "},
		{"QUIT", "221 2.0.0 See you later"},
	} {
		if step.send != "" {
			c.send(step.send + "\r\n")
		}
		c.expect(step.want)
	}
	c.closed()
	id := w.in.all()[0].m.ID.String()
	if !regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`).MatchString(id) {
		t.Errorf("id %s", id)
	}
}

func TestClientOfTheSameLibrary(t *testing.T) {
	w := start(t, nil)
	for _, mech := range []sasl.Client{
		sasl.NewPlainClient("", "apikey", w.secret), sasl.NewLoginClient("apikey", w.secret),
	} {
		c, err := smtp.DialStartTLS(w.srv.Addrs()[0].String(), w.tlsConfig())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Auth(mech); err != nil {
			t.Fatal(err)
		}
		if err := c.SendMail("a@b.example", []string{"c@d.example", "e@f.example"}, strings.NewReader(simple)); err != nil {
			t.Fatal(err)
		}
		if err := c.Quit(); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.in.all(); len(got) != 2 || len(got[0].rcpts) != 2 || got[0].rcpts[1].Index != 1 {
		t.Errorf("accepted %+v", got)
	}
}

func TestStartTLSForgetsEverythingSaidBefore(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	c.envelope()
	c.cmd("501 5.5.4", "STARTTLS now")
	c.cmd("220 2.0.0", "STARTTLS")
	c.secure()
	c.cmd("503 5.5.1", "RCPT TO:<b@rcpt.example>")
	c.cmd("250", "EHLO client.example")
	c.cmd("503 5.5.1 TLS is active already", "STARTTLS")
	c.cmd("530 5.7.0", "MAIL FROM:<a@sender.example>")
	c.auth()
	if got := c.data(simple); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	if body := w.in.all()[0].body; !strings.Contains(body, "with ESMTPSA") || !strings.Contains(body, "(TLS 1.3:") {
		t.Error(body)
	}
}

func TestNothingMayFollowSTARTTLSInClear(t *testing.T) {
	w := start(t, nil)
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	c.send("STARTTLS\r\nNOOP\r\n")
	c.expect("554 5.5.1")
	_, _ = io.ReadAll(c.r)
}

func TestAuthNeedsTLSByDefault(t *testing.T) {
	w := start(t, func(o *Options) { o.AllowPlaintextAuth = false })
	c := w.dial()
	if r := c.cmd("250", "EHLO client.example"); strings.Contains(r, "AUTH") {
		t.Error("AUTH offered in clear")
	}
	c.cmd("538 5.7.11", "AUTH PLAIN "+plainResponse("apikey", w.secret))
	c.cmd("220", "STARTTLS")
	c.secure()
	if r := c.cmd("250", "EHLO client.example"); !strings.Contains(r, "AUTH PLAIN LOGIN") {
		t.Error("AUTH not offered over TLS")
	}
	c.auth()
}

func TestTrustedNetworksSubmitForTheParent(t *testing.T) {
	w := start(t, func(o *Options) { o.Trusted = loopback() })
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	if got := c.data(simple); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	c.auth() // a trusted client may still say who it is
	if got := c.data(simple); !strings.HasPrefix(got, "250") {
		t.Fatal(got)
	}
	got := w.in.all()
	if got[0].m.Account != account.Parent || got[1].m.Account != "2" {
		t.Errorf("accounts %s, %s", got[0].m.Account, got[1].m.Account)
	}
	if !strings.Contains(got[0].body, "with ESMTP id") || !strings.Contains(got[1].body, "with ESMTPA id") {
		t.Error("protocol in Received")
	}
	w.accounts.change(func() {
		a := w.accounts.accounts[account.Parent]
		a.Disabled = true
		w.accounts.accounts[account.Parent] = a
	})
	c = w.dial()
	c.cmd("250", "EHLO client.example")
	c.cmd("530 5.7.0", "MAIL FROM:<a@sender.example>")
}

func TestKeyIsAskedAgainAtEveryMail(t *testing.T) {
	for name, change := range map[string]func(*memAccounts){
		"revoked":  func(m *memAccounts) { clear(m.keys) },
		"disabled": func(m *memAccounts) { m.accounts["2"] = account.Account{ID: "2", Disabled: true} },
		"deleted":  func(m *memAccounts) { delete(m.accounts, "2") },
		"scope": func(m *memAccounts) {
			for id, k := range m.keys {
				k.Scopes = []account.Scope{account.KeysRead}
				m.keys[id] = k
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(o *Options) { o.lookEvery = time.Hour })
			c := w.ready()
			c.cmd("250", "MAIL FROM:<a@sender.example>")
			c.cmd("250", "RSET")
			w.accounts.change(func() { change(w.accounts) })
			c.cmd("530 5.7.0 Authentication failed: The provided", "MAIL FROM:<a@sender.example>")
			c.expect("421 4.7.0 " + host + " The API key of this session")
			c.closed()
		})
	}
}

func TestStoreTroubleIsTemporary(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	w.accounts.change(func() { w.accounts.trouble = errors.New("postgres: secret inner text") })
	const text = " Authentication failed: Could not authenticate"
	if got := c.cmd("451", "MAIL FROM:<a@sender.example>"); got != "451 4.3.0"+text {
		t.Error(got)
	}
	other := w.dial()
	other.cmd("250", "EHLO client.example")
	if got := other.cmd("454", "AUTH PLAIN "+plainResponse("apikey", w.secret)); got != "454 4.7.0"+text {
		t.Error(got)
	}
	w.accounts.change(func() { w.accounts.trouble = nil })
	c.cmd("250", "MAIL FROM:<a@sender.example>")
	other.auth()
}

func TestKeyNeedsMailSend(t *testing.T) {
	w := start(t, nil)
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	c.cmd("535 5.7.8", "AUTH PLAIN "+plainResponse("apikey", w.accounts.addKey("2", account.KeysRead)))
	c.cmd("235", "AUTH PLAIN "+plainResponse("apikey", w.accounts.addKey("2", account.KeysRead, account.MailSend)))
}

func TestEnvelopeReachesTheIntake(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	c.cmd("250", "MAIL FROM:<> BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+3Dc")
	c.cmd("250", "RCPT TO:<grüße@xn--bcher-kva.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+2Bx@old.example")
	c.cmd("250", "RCPT TO:<b@rcpt.example> NOTIFY=NEVER")
	c.cmd("250", "RCPT TO:<c@rcpt.example>")
	c.cmd("354", "DATA")
	c.send("Subject: gr\xc3\xbc\xc3\x9fe\r\nMessage-ID: <mine@x>\r\nX-SMTPAPI: {\"category\": \"c\", \"unique_args\": {\"k\": \"v\", \"n\": 1.50, \"t\": true}}\r\n\r\nx\r\n.\r\n")
	id := strings.TrimPrefix(c.expect("250 2.0.0 Ok: queued as "), "250 2.0.0 Ok: queued as ")
	got := w.in.all()[0]
	m := got.m
	if m.ID.String() != id || m.Account != "2" || !m.From.IsNull() || m.SMTPID != "<mine@x>" || m.Client != "127.0.0.1" ||
		m.EnvelopeID != "a+b=c" || m.Return != relay.ReturnHeaders || !m.SMTPUTF8 || !m.EightBit || m.RequireTLS ||
		m.Size != int64(len(got.body)) || string(m.Category) != `"c"` ||
		fmt.Sprint(m.UniqueArgs) != "map[k:v n:1.50 t:true]" {
		t.Errorf("message %+v", m)
	}
	r := got.rcpts
	if r[0].Address.String() != "grüße@xn--bcher-kva.example" || r[0].Notify != relay.NotifySuccess|relay.NotifyDelay ||
		r[0].OriginalType != "rfc822" || r[0].Original != "old+x@old.example" || r[1].Notify != relay.NotifyNever ||
		r[2].Notify != 0 || r[2].Index != 2 {
		t.Errorf("recipients %+v", r)
	}
	if strings.Contains(strings.ToLower(got.body), "x-smtpapi") || strings.Contains(got.body, "for <") || strings.Contains(got.body, w.secret[3:20]) {
		t.Errorf("body %s", got.body)
	}
	if !strings.Contains(got.body, "with UTF8SMTPA id "+id) {
		t.Errorf("body %s", got.body)
	}
}

func TestControlsInDSNParametersAreRefused(t *testing.T) {
	w := start(t, nil)
	c := w.ready()
	c.cmd("501 5.5.4", "MAIL FROM:<a@b.example> ENVID="+strings.Repeat("x", maxEnvelopeID+1))
	c.cmd("250", "MAIL FROM:<a@b.example> SMTPUTF8")
	c.cmd("501 5.5.4", `RCPT TO:<b@c.example> ORCPT=utf-8;a\x{09}b@c`)
	c.cmd("501 5.5.4", "RCPT TO:<b@c.example> ORCPT=rfc822;a+0D+0Ab@c")
}

func TestTooManyRecipients(t *testing.T) {
	w := start(t, func(o *Options) { o.MaxRecipients = 2 })
	c := w.ready()
	c.envelope()
	c.cmd("250", "RCPT TO:<c@rcpt.example>")
	c.cmd("452 4.5.3", "RCPT TO:<d@rcpt.example>")
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	c.expect("250")
	if n := len(w.in.all()[0].rcpts); n != 2 {
		t.Errorf("%d recipients", n)
	}
}

func TestChunksAfterARefusalAreDropped(t *testing.T) {
	w := start(t, nil)
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	chunk := "NOOP\r\nQUIT\r\n"
	c.send(fmt.Sprintf("MAIL FROM:<a@b.example>\r\nRCPT TO:<b@c.example>\r\nBDAT %d\r\n%sBDAT %d LAST\r\n%sNOOP\r\n", len(chunk), chunk, len(chunk), chunk))
	c.expect("530")
	c.expect("503")
	c.expect("503 5.5.1 No valid recipients")
	c.expect("503 5.5.1 No valid recipients")
	c.expect("250 2.0.0")
}

func TestIdleClientsAreToldAndClosed(t *testing.T) {
	w := start(t, func(o *Options) { o.IdleTimeout = 100 * time.Millisecond })
	c := w.dial()
	c.expect("421 4.4.2 " + host)
	c.closed()
	// Trickling octets of a command does not keep a place.
	c = w.dial()
	go func() {
		for range 100 {
			if _, err := io.WriteString(c.Conn, "N"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	c.expect("421 4.4.2 " + host)
}

func TestMetricsTellAcceptedFromRefused(t *testing.T) {
	w := start(t, nil)
	c := w.dialTLS()
	c.cmd("250", "EHLO client.example")
	c.auth()
	c.data(simple)
	c.data("X-SMTPAPI: {\r\n")
	w.in.fail = errors.New("away")
	c.data(simple)
	for outcome, want := range map[string]float64{"accepted": 1, "5xx": 1, "4xx": 1} {
		if n := value(t, w.srv.metrics.messages.WithLabelValues(outcome)); n != want {
			t.Errorf("%s: %v", outcome, n)
		}
	}
	if n := value(t, w.srv.metrics.tls.WithLabelValues("1.3")); n != 1 {
		t.Errorf("TLS 1.3: %v", n)
	}
	families, err := w.reg.Gather()
	if err != nil || len(families) == 0 {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "tlsrelay_submission_") {
			t.Error(f.GetName())
		}
	}
}

func TestStoppingAtOnceStops(t *testing.T) {
	for range 50 {
		start(t, nil).stop()
	}
}
