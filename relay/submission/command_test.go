package submission

import (
	"strings"
	"testing"
)

// What ordinary clients write otherwise than RFC 5321 has it is understood.
func TestCommandsAsClientsWriteThem(t *testing.T) {
	w := start(t, nil)
	c := w.dial()
	for _, step := range []struct{ line, want string }{
		{"ehlo [192.0.2.1]", "250-relay.example"},
		{"EHLO [IPv6:2001:db8::1] ", "250-relay.example"},
		{"EHLO my laptop's name", "250-relay.example"},
		{"EHLO (none)", "250-relay.example"},
		{"EHLO gr\xc3\xbc\xc3\x9fe_\xff", "250-relay.example"},
		{"EHLO ", "501 5.5.2"},
		{"helo localhost", "250 relay.example"},
		{"auth login", "334 VXNlcm5hbWU6"},
		{b64("apikey") + " ", "334 UGFzc3dvcmQ6"},
		{b64("wrong"), "535 5.7.8"},
		{"AUTH LOGIN " + b64("apikey"), "334 UGFzc3dvcmQ6"},
		{b64(w.secret), "235 2.7.0"},
		{"mail from:<a@sender.example>", "250 2.1.0"},
		{"rset ", "250 2.0.0"},
		{"MAIL FROM: <a@sender.example> ", "250 2.1.0"},
		{"RSET now", "250 2.0.0"},
		{"Mail From: a@sender.example size=100 body=8bitmime", "250 2.1.0"},
		{"RSET", "250 2.0.0"},
		{"MAIL  FROM : <a@sender.example>", "250 2.1.0"},
		{"RSET", "250 2.0.0"},
		{"MAIL FROM:<a@sender.example> AUTH=<>", "250 2.1.0"},
		{"RSET", "250 2.0.0"},
		{"MAIL FROM:<a@sender.example> SIZE=1 auth=root BODY=7BIT", "250 2.1.0"},
		{"RSET", "250 2.0.0"},
		{`MAIL FROM:<"x AUTH=y"@sender.example> AUTH=a=b`, "250 2.1.0"},
		{"RSET", "250 2.0.0"},
		{"MAIL FROM:<@a.test,@[192.0.2.1]:a@sender.example.>SIZE=100", "250 2.1.0"},
		{"RCPT TO:<Postmaster>", "250 2.1.5"},
		{"rcpt to : POSTMASTER", "250 2.1.5"},
		{"RCPT TO:<postmaster> NOTIFY=NEVER", "250 2.1.5"},
		{"RCPT TO:<@hop.test:b@rcpt.example>", "250 2.1.5"},
		{"RCPT TO:<@hop.test,@[IPv6:2001:db8::1]:b@rcpt.example>", "501 5.1.3"}, // go-smtp's
		{"RCPT TO:<b@rcpt.example.>", "250 2.1.5"},
		{"RCPT TO:<b@rcpt.example..>", "501 5.1.3"},
		{"RCPT TO:<postmaster@>", "501 5.1.3"},
		{"noop ", "250 2.0.0"},
		{"data ", "354 Continue"},
		{simple + "\r\n.", "250 2.0.0"},
		{"MAIL FROM:<postmaster>", "501 5.1.7"},
		{"quit ", "221 2.0.0"},
	} {
		c.cmd(step.want, step.line)
	}
	got := w.in.all()[0]
	if from := got.m.From.String(); from != "a@sender.example" {
		t.Errorf("from %s", from)
	}
	var to []string
	for _, r := range got.rcpts {
		to = append(to, r.Address.String())
	}
	want := "Postmaster@relay.example POSTMASTER@relay.example postmaster@relay.example b@rcpt.example b@rcpt.example"
	if strings.Join(to, " ") != want || got.rcpts[2].Notify == 0 {
		t.Errorf("to %s", to)
	}
}

// Before TLS, who may not send hears what to do.
func TestUnauthenticated(t *testing.T) {
	w := start(t, func(o *Options) { o.AllowPlaintextAuth = false })
	const text = "530 5.7.0 Unauthenticated senders not allowed"
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	if got := c.cmd("530", "MAIL FROM:<a@sender.example>"); got != text+": say STARTTLS first, then AUTH" {
		t.Error(got)
	}
	c.cmd("220", "STARTTLS")
	c.secure()
	c.cmd("250", "EHLO client.example")
	if got := c.cmd("530", "MAIL FROM:<a@sender.example>"); got != text {
		t.Error(got)
	}
	w = start(t, func(o *Options) { o.TLS, o.ListenTLS = nil, nil })
	c = w.dial()
	c.cmd("250", "EHLO client.example")
	if got := c.cmd("530", "MAIL FROM:<a@sender.example>"); got != text {
		t.Error(got)
	}
}
