package submission

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/policy/account"
)

// from dials from another address of this machine.
func (w *world) from(ip string) *client {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	c, err := d.Dial("tcp", w.srv.Addrs()[0].String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return w.speaking(c)
}

func (w *world) counted(cause string) float64 {
	w.t.Helper()
	return value(w.t, w.srv.metrics.rejected.WithLabelValues(cause))
}

// Beyond each cap the answer is 421, at once.
func TestCapsTurnClientsAway(t *testing.T) {
	for cause, c := range map[string]struct {
		change func(*Options)
		code   string
	}{
		"max_connections":        {func(o *Options) { o.MaxConnections, o.Trusted = 21, loopback() }, "421 4.3.2 "},
		"max_connections_per_ip": {func(o *Options) { o.MaxPerIP = 20 }, "421 4.3.2 "},
		"max_strangers_per_ip":   {func(o *Options) { o.MaxStrangersPerIP = 20 }, "421 4.7.0 "},
	} {
		t.Run(cause, func(t *testing.T) {
			core, logs := observer.New(zap.WarnLevel)
			w := startLogging(t, zap.New(core), c.change)
			var held []*client
			for range 20 {
				held = append(held, w.dial())
			}
			for range 20 {
				c1 := w.raw(w.srv.Addrs()[0])
				c1.expect(c.code + host)
				c1.closed()
			}
			w.raw(w.srv.AddrsTLS()[0]).closed()
			if n := w.counted(cause); n != 21 {
				t.Errorf("rejected %v", n)
			}
			if n := value(t, w.srv.metrics.current); n != 20 {
				t.Errorf("current %v", n)
			}
			if all := logs.All(); len(all) != 1 || all[0].ContextMap()["cause"] != cause || all[0].ContextMap()["source"] != "127.0.0.1/32" {
				t.Errorf("logged: %v", all)
			}
			held[0].cmd("221", "QUIT")
			held[0].closed()
			waitFor(t, "a free place", func() bool { return value(t, w.srv.metrics.current) == 19 })
			w.dial()
		})
	}
}

// While places are short the oldest stranger goes, with a word, and who has logged
// in stays, at work or not.
func TestStrangersGiveWay(t *testing.T) {
	w := start(t, func(o *Options) { o.MaxConnections = 25 }) // 5 strangers
	resting, busy := w.ready(), w.ready()
	busy.envelope()
	var silent []*client
	for i := range 5 {
		c := w.from(fmt.Sprintf("127.0.1.%d", i+1))
		c.expect("220")
		silent = append(silent, c)
	}
	secured := silent[2]
	secured.cmd("250", "EHLO client.example")
	secured.cmd("220", "STARTTLS")
	secured.secure()
	secured.cmd("250", "EHLO client.example") // the relay, too, is through with the handshake
	var coming []*client
	for i := range 5 {
		c := w.from(fmt.Sprintf("127.0.2.%d", i+1))
		c.expect("220")
		silent[i].expect("421 4.3.2 " + host + " Too many connections that have not logged in")
		silent[i].closed()
		coming = append(coming, c)
	}
	for _, c := range coming {
		c.cmd("250", "EHLO client.example")
		c.auth()
	}
	if n := w.counted("gave_way"); n != 5 {
		t.Errorf("%v gave way", n)
	}
	resting.cmd("250", "NOOP")
	busy.cmd("354", "DATA")
	busy.send(simple + "\r\n.\r\n")
	busy.expect("250")
}

// What a stranger does to stay, it has its time and no more.
func TestStrangersHaveTheirTime(t *testing.T) {
	t.Parallel()
	w := start(t, func(o *Options) { o.LoginTimeout = time.Second })
	known := w.ready()
	begun := time.Now()
	for name, c := range map[string]func() *client{
		"silent": w.dial,
		"in TLS": w.dialTLS,
		"in AUTH": func() *client {
			c := w.dial()
			c.cmd("250", "EHLO client.example")
			c.cmd("334", "AUTH LOGIN")
			return c
		},
		"dripping a chunk": func() *client {
			c := w.dial()
			c.send("BDAT 1000000\r\n")
			go drip(c)
			return c
		},
		"dripping a line": func() *client {
			c := w.dial()
			go drip(c)
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := c()
			if got := c.reply(); strings.HasPrefix(got, "503") {
				c.expect("421 4.4.2 " + host + " No login in time")
			} else if !strings.HasPrefix(got, "421 4.4.2 "+host+" No login in time") {
				t.Errorf("%q", got)
			}
		})
	}
	hello := w.raw(w.srv.AddrsTLS()[0])
	hello.send("\x16\x03\x01\x02") // of a handshake, and no more
	hello.closed()
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("all that took %v", took)
	}
	if n := w.counted("login_timeout"); n != 6 {
		t.Errorf("%v are counted", n)
	}
	known.cmd("250", "NOOP")
}

func drip(c *client) {
	for range 200 {
		if _, err := c.Conn.Write([]byte("N")); err != nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// A stranger has no business that takes hundreds of commands; who has logged in
// may have.
func TestCommandsBeforeALoginAreBounded(t *testing.T) {
	w := start(t, nil)
	c := w.dial()
	for range maxCommands {
		c.cmd("250", "NOOP")
	}
	c.cmd("421 4.7.0 "+host+" Too many commands", "NOOP")
	c.closed()
	c = w.ready()
	for range 2 * maxCommands {
		c.cmd("250", "NOOP")
	}
}

// A session ends with its key or its account, whatever it waits for, and whoever
// else there is goes on.
func TestSessionsEndWithTheirKey(t *testing.T) {
	for name, change := range map[string]func(*memAccounts){
		"revoked":  func(m *memAccounts) { clear(m.keys) },
		"disabled": func(m *memAccounts) { m.accounts["2"] = account.Account{ID: "2", Disabled: true} },
		"deleted":  func(m *memAccounts) { delete(m.accounts, "2") },
	} {
		t.Run(name, func(t *testing.T) {
			core, logs := observer.New(zap.InfoLevel)
			w := startLogging(t, zap.New(core), func(o *Options) { o.lookEvery = 10 * time.Millisecond })
			stranger := w.dial()
			resting, content, chunk := w.ready(), w.ready(), w.ready()
			content.envelope()
			content.cmd("354", "DATA")
			content.send(simple)
			chunk.envelope()
			chunk.send("BDAT 1000\r\nSubject: a\r\n")
			waitFor(t, "content is on its way", func() bool { return w.in.drafts() == 2 })
			w.accounts.change(func() { w.accounts.trouble = context.DeadlineExceeded })
			w.srv.endSessions() // a store that cannot say ends nothing
			if n := w.counted("key_ended"); n != 0 {
				t.Errorf("%v sessions ended with the store", n)
			}
			w.accounts.change(func() {
				w.accounts.trouble = nil
				change(w.accounts)
			})
			for _, c := range []*client{resting, content, chunk} {
				c.expect("421 4.7.0 " + host + " The API key of this session")
			}
			stranger.cmd("250", "NOOP")
			if n := w.counted("key_ended"); n != 3 {
				t.Errorf("%v sessions ended", n)
			}
			waitFor(t, "it is logged", func() bool { return logs.FilterMessageSnippet("sessions ended").Len() == 1 })
		})
	}
}

// A message that is being stored when its session ends has its reply first.
func TestReplyBeforeASessionEnds(t *testing.T) {
	w := start(t, func(o *Options) { o.lookEvery = 10 * time.Millisecond })
	w.in.hold = make(chan struct{})
	c := w.ready()
	c.envelope()
	c.cmd("354", "DATA")
	c.send(simple + "\r\n.\r\n")
	waitFor(t, "it is being stored", func() bool {
		return value(t, w.srv.metrics.current) == 1 && w.in.writes.Load() > 0 && w.in.drafts() == 0
	})
	w.accounts.change(func() { clear(w.accounts.keys) })
	waitFor(t, "the session has ended", func() bool { return w.counted("key_ended") == 1 })
	close(w.in.hold)
	c.expect("250 2.0.0 Ok: queued as ")
	c.expect("421 4.7.0 " + host)
	c.closed()
}

// No account keeps the others out by its connections.
func TestNoAccountTakesAllPlaces(t *testing.T) {
	w := start(t, func(o *Options) { o.MaxConnections = 21 }) // 20 known
	other := w.accounts.addKey(account.Parent, account.MailSend)
	var all []*client
	for range 20 {
		all = append(all, w.ready())
	}
	all[0].envelope()
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	c.cmd("421 4.3.2 "+host, "AUTH PLAIN "+plainResponse("apikey", w.secret))
	c.closed()
	for i := range 9 {
		c := w.dial()
		c.cmd("250", "EHLO client.example")
		c.cmd("235", "AUTH PLAIN "+plainResponse("apikey", other))
		all[i+1].expect("421 4.3.2 " + host)
	}
	all[0].cmd("250", "RSET")
	all[19].cmd("250", "NOOP")
	if n := w.counted("account_share"); n != 9 {
		t.Errorf("%v went", n)
	}
}

// What an account does with its connections to be at work for ever, others get their
// places: it has its time, and no more.
func TestNoAccountKeepsAllPlacesByWork(t *testing.T) {
	for name, work := range map[string]func(*client){
		"in a transaction":  (*client).envelope,
		"dripping content":  func(c *client) { c.envelope(); c.cmd("354", "DATA"); go drip(c) },
		"dripping a chunk":  func(c *client) { c.envelope(); c.send("BDAT 1000000\r\n"); go drip(c) },
		"one after another": func(c *client) { c.envelope(); go repeat(c, "RSET\r\nMAIL FROM:<a@sender.example>\r\n") },
		"reads no replies":  func(c *client) { go repeat(c, strings.Repeat("NOOP\r\n", 1000)) },
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, func(o *Options) { o.MaxConnections, o.workTime = 11, 200*time.Millisecond }) // 10 known
			other := w.accounts.addKey(account.Parent, account.MailSend)
			for range 10 {
				work(w.ready())
			}
			waitFor(t, "another account has a place", func() bool {
				c := w.dial()
				c.cmd("250", "EHLO client.example")
				c.send("AUTH PLAIN " + plainResponse("apikey", other) + "\r\n")
				return strings.HasPrefix(c.reply(), "235")
			})
			if n := w.counted("account_share"); n != 1 {
				t.Errorf("%v went", n)
			}
		})
	}
}

// repeat says the same as long as anybody listens.
func repeat(c *client, text string) {
	for {
		if _, err := c.Conn.Write([]byte(text)); err != nil {
			return
		}
	}
}
