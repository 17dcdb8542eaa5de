package submission

import "testing"

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
