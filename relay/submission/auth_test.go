package submission

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/policy/account"
)

// fails logs in with a wrong secret on a connection of its own.
func (w *world) fails(secret string) *client {
	w.t.Helper()
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	c.send("AUTH PLAIN " + plainResponse("apikey", secret) + "\r\n")
	return c
}

// slowed expects a failure that ends the connection, and says why.
func (c *client) slowed() {
	c.t.Helper()
	c.expect("535 5.7.8 Authentication failed: The provided")
	c.expect("421 4.7.0 " + host + " Too many failed authentications")
	c.closed()
}

// One client with a wrong key is slowed. Others at its address get in, and so
// does itself with the right one.
func TestRightKeyAlwaysGetsIn(t *testing.T) {
	const limit, slow = 3, 200 * time.Millisecond
	core, logs := observer.New(zap.InfoLevel)
	w := start(t, func(o *Options) { o.AuthFailuresPerMinute, o.slowAnswer = limit, slow })
	w.srv.log = zap.New(core)
	wrong := account.NewSecret()
	id, _, _ := account.SplitSecret(wrong)
	for range limit {
		c := w.fails(wrong)
		c.expect("535 5.7.8")
		c.cmd("334", "AUTH LOGIN") // the other mechanism, by the same client
		c.cmd("334", b64("apikey"))
		c.cmd("535 5.7.8", b64(wrong))
		c.auth()
	}
	for range 3 {
		begun := time.Now()
		w.fails(wrong).slowed()
		if took := time.Since(begun); took < slow {
			t.Errorf("answered after %v", took)
		}
		w.ready()
	}
	if n := value(t, w.srv.metrics.authFailures); n != 2*limit+3 {
		t.Errorf("%v failures are counted", n)
	}
	if n := value(t, w.srv.metrics.rejected.WithLabelValues("auth_failures")); n != 3 {
		t.Errorf("%v connections were ended", n)
	}
	if n := logs.FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
		t.Errorf("%d warnings", n)
	}
	if n := logs.Len(); n != limit+1 {
		t.Errorf("%d lines", n)
	}
	for _, e := range logs.All() {
		if e.ContextMap()["key"] != id || e.ContextMap()["client"] != "127.0.0.1" {
			t.Errorf("%v", e.ContextMap())
		}
		if strings.Contains(fmt.Sprint(e), wrong[len(wrong)-43:]) {
			t.Error("the secret is in the log")
		}
	}
}

// Slow answers are no attack: so many wait and no more, and none of them keeps
// the server from stopping.
func TestSlowAnswersAreBounded(t *testing.T) {
	w := start(t, func(o *Options) { o.AuthFailuresPerMinute, o.slowAnswer = 1, time.Hour })
	wrong := account.NewSecret()
	w.fails(wrong).expect("535")
	var waiting []*client
	const most = 4 // of one source (relay/places)
	for range most {
		waiting = append(waiting, w.fails(wrong))
	}
	waitFor(t, "answers held back", func() bool {
		_, held := w.srv.failures.Counts(netip.MustParseAddr("127.0.0.1"))
		return held == most
	})
	w.fails(wrong).slowed()
	w.ready()
	w.stop()
	for _, c := range waiting {
		c.slowed()
	}
}

// A connection that fails again and again counts once, and does not go on so.
func TestManyFailuresOnOneConnection(t *testing.T) {
	w := start(t, func(o *Options) { o.slowAnswer = time.Millisecond })
	wrong := account.NewSecret()
	c := w.fails(wrong)
	for range maxFailures - 1 {
		c.expect("535 5.7.8")
		c.send("AUTH PLAIN " + plainResponse("apikey", wrong) + "\r\n")
	}
	c.slowed()
	if n, _ := w.srv.failures.Counts(netip.MustParseAddr("127.0.0.1")); n != 1 {
		t.Errorf("%d connections have failed", n)
	}
}

func TestKeyField(t *testing.T) {
	id := strings.Repeat("a", 22)
	for secret, want := range map[string]string{
		"SG." + id + "." + strings.Repeat("b", 43): id,
		" SG." + id + ".cut short\n":               id,
		"SG." + id:                                 "",
		"SG." + id + "a.x":                         "",
		"SG." + id[1:] + "\n.x":                    "",
		id + ".x":                                  "",
		"hunter2":                                  "",
		"":                                         "",
	} {
		if got := keyField(secret); got.String != want {
			t.Errorf("%q names %q", secret, got.String)
		}
	}
}

// A key with white space around it is still that key: it comes from a file
// with a line end, or was copied with a blank too many.
func TestWhiteSpaceAroundCredentials(t *testing.T) {
	w := start(t, nil)
	for _, space := range []string{"\n", "\r\n", " ", "\t", "\u00a0"} {
		c := w.dial()
		c.cmd("250", "EHLO client.example")
		c.cmd("235", "AUTH PLAIN "+plainResponse("apikey"+space, space+w.secret+space))
		c.cmd("250", "MAIL FROM:<a@sender.example>") // the key is asked again
		c = w.dial()
		c.cmd("250", "EHLO client.example")
		c.cmd("334", "auth login "+b64(space+"apikey"))
		c.cmd("235", b64(w.secret+space))
		c = w.dial()
		c.cmd("250", "EHLO client.example")
		c.cmd("235", "AUTH PLAIN "+b64("apikey"+space+"\x00apikey\x00"+w.secret+space))
	}
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	c.cmd("535", "AUTH PLAIN "+plainResponse("apikey", w.secret[:30]+" "+w.secret[30:]))
}
