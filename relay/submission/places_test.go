package submission

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/policy/account"
)

// room is places without connections, and a clock.
type room struct {
	t *testing.T
	*places
	now time.Time
}

func newRoom(t *testing.T, o Options) *room {
	return &room{t, newPlaces(o.withDefaults()), time.Now()}
}

func (r *room) comes(ip string, who account.ID) (p, out *peer, cause string) {
	p = &peer{ip: netip.MustParseAddr(ip)}
	out, cause = r.arrive(p, who, r.now)
	return p, out, cause
}

// seated is comes for who gets a place that was free.
func (r *room) seated(ip string, who account.ID) *peer {
	r.t.Helper()
	p, out, cause := r.comes(ip, who)
	if out != nil || cause != "" {
		r.t.Fatalf("%s: %q, and another one goes: %v", ip, cause, out != nil)
	}
	return p
}

// loggedIn is a stranger that came and logged in.
func (r *room) loggedIn(ip string, who account.ID) *peer {
	r.t.Helper()
	p := r.seated(ip, "")
	if out, cause := r.login(p, who, "secret", r.now); out != nil || cause != "" {
		r.t.Fatalf("%s logs in: %q, and another one goes: %v", ip, cause, out != nil)
	}
	return p
}

// An IPv6 host has a whole /64 to connect from.
func TestCapsCountSources(t *testing.T) {
	for _, c := range []struct {
		one, other string
		same       bool
	}{
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
	} {
		for cause, o := range map[string]Options{
			"max_connections_per_ip": {MaxPerIP: 2}, "max_strangers_per_ip": {MaxStrangersPerIP: 2},
		} {
			r := newRoom(t, o)
			p := r.seated(c.one, "")
			r.seated(c.one, "")
			if _, _, got := r.comes(c.other, ""); (got == cause) != c.same {
				t.Errorf("%s: %s beside two of %s: %q", cause, c.other, c.one, got)
			}
			r.leave(p)
			r.leave(p)
			r.seated(c.one, "")
		}
	}
}

// Whoever comes when places run out: who gets one, and who goes for it.
func TestPlaces(t *testing.T) {
	hundred := Options{MaxConnections: 100} // 20 strangers, 95 known

	t.Run("strangers give way, the oldest first", func(t *testing.T) {
		r := newRoom(t, hundred)
		var all []*peer
		for i := range 20 {
			all = append(all, r.seated(fmt.Sprintf("192.0.2.%d", i), ""))
			r.now = r.now.Add(time.Millisecond)
		}
		for i := range 5 {
			if _, out, cause := r.comes(fmt.Sprintf("198.51.100.%d", i), ""); out != all[i] || cause != "" {
				t.Fatalf("%d: %q", i, cause)
			}
			r.now = r.now.Add(time.Millisecond)
		}
		if s, k := r.counts(); s != 20 || k != 0 {
			t.Errorf("%d strangers, %d known", s, k)
		}
	})
	t.Run("those of the source that has most go first", func(t *testing.T) {
		r := newRoom(t, hundred)
		lone := r.seated("192.0.2.1", "")
		var many []*peer
		for range 19 {
			r.now = r.now.Add(time.Millisecond)
			many = append(many, r.seated("198.51.100.1", ""))
		}
		for i := range 18 {
			if _, out, cause := r.comes(fmt.Sprintf("203.0.113.%d", i), ""); out != many[i] || cause != "" {
				t.Fatalf("%d: %q", i, cause)
			}
			r.now = r.now.Add(time.Millisecond)
		}
		if _, out, _ := r.comes("203.0.113.200", ""); out != lone { // by now one among equals
			t.Error("not the oldest of all")
		}
	})
	t.Run("within one source, once they have had their chance", func(t *testing.T) {
		r := newRoom(t, Options{MaxStrangersPerIP: 3})
		oldest := r.seated("192.0.2.1", "")
		r.seated("192.0.2.1", "")
		r.seated("192.0.2.1", "")
		if _, _, cause := r.comes("192.0.2.1", ""); cause != "max_strangers_per_ip" {
			t.Errorf("at once: %q", cause)
		}
		r.now = r.now.Add(chance)
		if _, out, cause := r.comes("192.0.2.1", ""); out != oldest || cause != "" {
			t.Errorf("later: %q", cause)
		}
		r.loggedIn("192.0.2.2", "2")
	})
	t.Run("who has logged in stays", func(t *testing.T) {
		r := newRoom(t, hundred)
		for range 95 {
			r.loggedIn("192.0.2.1", "2")
		}
		for range 5 {
			r.seated("192.0.2.2", "")
		}
		p, out, cause := r.comes("192.0.2.3", "")
		if out == nil || out.seat.who != "" || cause != "" {
			t.Errorf("a newcomer: %q", cause)
		}
		if out, cause := r.login(p, "2", "secret", r.now); out != nil || cause != "max_connections" {
			t.Errorf("the login of who has all: %q", cause)
		}
		if _, out, cause := r.comes("192.0.2.4", account.Parent); out != nil || cause != "max_connections" {
			t.Errorf("a trusted client while all are busy: %q", cause)
		}
	})
	t.Run("no account has all", func(t *testing.T) {
		r := newRoom(t, hundred)
		var many []*peer
		for range 94 {
			many = append(many, r.loggedIn("192.0.2.1", "2"))
		}
		r.loggedIn("192.0.2.2", "3")
		many[0].resting.Store(false) // in a message
		many[1].resting.Store(true)
		p := r.seated("192.0.2.3", "")
		if out, cause := r.login(p, "3", "secret", r.now); out != many[1] || cause != "" {
			t.Errorf("%q", cause)
		}
		many[2].resting.Store(true)
		if _, out, cause := r.comes("192.0.2.4", account.Parent); out != many[2] || cause != "" {
			t.Errorf("a trusted client: %q", cause)
		}
		if s, k := r.counts(); s != 0 || k != 95 {
			t.Errorf("%d strangers, %d known", s, k)
		}
	})
	t.Run("trusted clients take the places of strangers", func(t *testing.T) {
		r := newRoom(t, hundred)
		first := r.seated("192.0.2.1", "")
		for range 19 {
			r.now = r.now.Add(time.Millisecond)
			r.seated("192.0.2.1", "")
		}
		for range 80 {
			r.seated("192.0.2.2", account.Parent)
		}
		if _, out, cause := r.comes("192.0.2.2", account.Parent); out != first || cause != "" {
			t.Errorf("%q", cause)
		}
	})
	t.Run("behind a balancer", func(t *testing.T) {
		r := newRoom(t, Options{MaxStrangersPerIP: 1, MaxPerIP: 2})
		var unnamed []*peer
		for range 4 {
			p := &peer{}
			if out, cause := r.arrive(p, "", r.now); out != nil || cause != "" {
				t.Fatal(cause)
			}
			unnamed = append(unnamed, p)
		}
		client := netip.MustParseAddr("192.0.2.1")
		if _, cause := r.rename(unnamed[0], client, "", r.now); cause != "" {
			t.Error(cause)
		}
		if _, cause := r.rename(unnamed[1], client, "", r.now); cause != "max_strangers_per_ip" {
			t.Errorf("%q", cause)
		}
		if _, cause := r.rename(unnamed[2], client, account.Parent, r.now); cause != "" {
			t.Error(cause)
		}
		if _, cause := r.rename(unnamed[3], client, account.Parent, r.now); cause != "max_connections_per_ip" {
			t.Errorf("%q", cause)
		}
		r.leave(unnamed[3])
		if s, k := r.counts(); s != 1 || k != 1 {
			t.Errorf("%d strangers, %d known", s, k)
		}
	})
	t.Run("the smallest relay", func(t *testing.T) {
		r := newRoom(t, Options{MaxConnections: 1})
		first := r.seated("192.0.2.1", "")
		p, out, cause := r.comes("192.0.2.2", "")
		if out != first || cause != "" {
			t.Errorf("%q", cause)
		}
		if _, cause := r.login(first, "2", "secret", r.now); cause != "gave_way" {
			t.Errorf("the login of one that has gone: %q", cause)
		}
		if _, cause := r.login(p, "2", "secret", r.now); cause != "" {
			t.Error(cause)
		}
		if _, _, cause := r.comes("192.0.2.3", ""); cause != "max_connections" {
			t.Errorf("%q", cause)
		}
	})
}

func TestPatience(t *testing.T) {
	for full, want := range map[int]time.Duration{
		0: time.Minute, 50: time.Minute, 75: 30 * time.Second, 95: 10 * time.Second, 100: 10 * time.Second, 120: 10 * time.Second,
	} {
		if got := patience(time.Minute, full); got != want {
			t.Errorf("%d %%: %v", full, got)
		}
	}
}

func TestSeldom(t *testing.T) {
	var l seldom
	now := time.Now()
	for i, c := range []struct {
		after time.Duration
		cause string
		n     int
		due   bool
	}{
		{0, "a", 1, true}, {0, "a", 1, false}, {59 * time.Second, "a", 2, false}, {0, "b", 1, true},
		{time.Second, "a", 3, true}, {time.Hour, "a", 1, true},
	} {
		now = now.Add(c.after)
		if n, due := l.due(c.cause, now); due != c.due || due && n != c.n {
			t.Errorf("step %d: %d %v", i, n, due)
		}
	}
}

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
