package places

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"tlsrelay/policy/account"
)

// conn is a connection that exists in a pool alone.
type conn struct {
	seat    Seat
	room    *room
	ip      netip.Addr
	resting bool
	asks    bool
	overdue bool
	showBy  time.Time
	loss    Loss
}

func (c *conn) ShowBy(t time.Time) { c.showBy = t }
func (c *conn) Resting() bool      { return c.resting }
func (c *conn) Asks() bool         { return c.asks }
func (c *conn) Overdue() bool      { return c.overdue }
func (c *conn) GiveWay(l Loss)     { c.loss, c.room.went = l, c }

// room is a pool, and a clock.
type room struct {
	t *testing.T
	*Pool
	now  time.Time
	went *conn // that gave way in the last step
}

// chance is what a login of several round trips needs.
const chance = 5 * time.Second

func newRoom(t *testing.T, l Limits) *room {
	if l.Total == 0 {
		l.Total = 10_000
	}
	l.ShowTime, l.Chance = time.Minute, chance
	return &room{t: t, Pool: New(l), now: time.Now()}
}

func (r *room) comes(ip string, who account.ID) (c, out *conn, cause string) {
	c = &conn{room: r, ip: netip.MustParseAddr(ip)}
	r.went = nil
	cause = r.Arrive(&c.seat, c, c.ip, who, r.now)
	return c, r.went, cause
}

func (r *room) login(c *conn, who account.ID, secret string, now time.Time) (out *conn, cause string) {
	r.went = nil
	cause = r.Login(&c.seat, who, secret, now)
	return r.went, cause
}

// seated is comes for who gets a place that was free.
func (r *room) seated(ip string, who account.ID) *conn {
	r.t.Helper()
	p, out, cause := r.comes(ip, who)
	if out != nil || cause != "" {
		r.t.Fatalf("%s: %q, and another one goes: %v", ip, cause, out != nil)
	}
	return p
}

// loggedIn is a stranger that came and logged in.
func (r *room) loggedIn(ip string, who account.ID) *conn {
	r.t.Helper()
	p := r.seated(ip, "")
	if out, cause := r.login(p, who, "secret", r.now); out != nil || cause != "" {
		r.t.Fatalf("%s logs in: %q, and another one goes: %v", ip, cause, out != nil)
	}
	return p
}

// A stranger whose request is there and not read yet is spared for the next one, for a
// while; and where all of them ask, the oldest goes all the same.
func TestAskingIsSpared(t *testing.T) {
	r := newRoom(t, Limits{Total: 10})
	asking := r.seated("192.0.2.1", "")
	asking.asks = true
	silent := r.seated("192.0.2.2", "")
	goes := silent
	for i := range 5 {
		r.now = r.now.Add(time.Second)
		c, out, cause := r.comes(fmt.Sprintf("192.0.2.%d", 10+i), "")
		if out != goes || cause != "" {
			t.Errorf("%d: %q, and %v goes", i, cause, out)
		}
		goes = c
	}
	r.now = r.now.Add(2 * time.Second)
	_, first, _ := r.comes("192.0.2.20", "")
	_, second, _ := r.comes("192.0.2.21", "")
	if first != asking && second != asking {
		t.Error("it is spared for ever")
	}
	r = newRoom(t, Limits{Total: 10})
	a := r.seated("192.0.2.1", "")
	r.now = r.now.Add(time.Second)
	b := r.seated("192.0.2.2", "")
	a.asks, b.asks = true, true
	if _, out, _ := r.comes("192.0.2.3", ""); out != a {
		t.Errorf("%v goes", out)
	}
}

// A few clients at one address, behind a translator or with an account of its own, do not
// go before as many addresses with one client each: only a source that has very many does.
func TestSmallSourcesGoByAge(t *testing.T) {
	r := newRoom(t, Limits{Total: 400}) // 80 strangers: more than 10 of a source are very many
	next := 0
	comes := func(ip string) (c, out *conn) {
		r.now = r.now.Add(time.Millisecond)
		c, out, _ = r.comes(ip, "")
		return c, out
	}
	other := func() (c, out *conn) {
		next++
		return comes(fmt.Sprintf("192.0.2.%d", next))
	}
	oldest, _ := other()
	for range 20 {
		comes("198.51.100.1")
	}
	var few []*conn
	for range 5 {
		c, _ := comes("203.0.113.1")
		few = append(few, c)
	}
	for range 54 {
		other()
	}
	for i := range 10 {
		if _, out := other(); out == nil || out.ip.String() != "198.51.100.1" {
			t.Errorf("%d: %v goes", i, out)
		}
	}
	if _, out := other(); out != oldest {
		t.Errorf("%v goes", out)
	}
	for range 10 {
		other()
	}
	if _, out := other(); out != few[0] {
		t.Errorf("%v goes", out)
	}
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
		for cause, o := range map[string]Limits{
			"max_connections_per_ip": {PerIP: 2}, "max_strangers_per_ip": {StrangersPerIP: 2},
		} {
			r := newRoom(t, o)
			p := r.seated(c.one, "")
			r.seated(c.one, "")
			if _, _, got := r.comes(c.other, ""); (got == cause) != c.same {
				t.Errorf("%s: %s beside two of %s: %q", cause, c.other, c.one, got)
			}
			r.Leave(&p.seat)
			r.Leave(&p.seat)
			r.seated(c.one, "")
		}
	}
}

// Whoever comes when places run out: who gets one, and who goes for it.
func TestPlaces(t *testing.T) {
	hundred := Limits{Total: 100} // 20 strangers, 95 known

	t.Run("strangers give way, the oldest first", func(t *testing.T) {
		r := newRoom(t, hundred)
		var all []*conn
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
		if s, k := r.Counts(); s != 20 || k != 0 {
			t.Errorf("%d strangers, %d known", s, k)
		}
	})
	t.Run("those of a source with very many go first", func(t *testing.T) {
		r := newRoom(t, hundred)
		lone := r.seated("192.0.2.1", "")
		var many []*conn
		for range 19 {
			r.now = r.now.Add(time.Millisecond)
			many = append(many, r.seated("198.51.100.1", ""))
		}
		for i := range 17 { // an eighth of the strangers is not very many
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
		r := newRoom(t, Limits{StrangersPerIP: 3})
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
		if out == nil || out.loss.Who != "" || cause != "" {
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
		var many []*conn
		for range 94 {
			many = append(many, r.loggedIn("192.0.2.1", "2"))
		}
		r.loggedIn("192.0.2.2", "3")
		many[0].resting = false // in a message
		many[1].resting = true
		p := r.seated("192.0.2.3", "")
		if out, cause := r.login(p, "3", "secret", r.now); out != many[1] || cause != "" {
			t.Errorf("%q", cause)
		}
		many[2].resting = true
		if _, out, cause := r.comes("192.0.2.4", account.Parent); out != many[2] || cause != "" {
			t.Errorf("a trusted client: %q", cause)
		}
		many[3].overdue = true
		p = r.seated("192.0.2.3", "")
		if out, cause := r.login(p, "3", "secret", r.now); out != many[3] || cause != "" {
			t.Errorf("none rests, and one is overdue: %q", cause)
		}
		many[4].overdue, many[5].resting = true, true
		p = r.seated("192.0.2.3", "")
		if out, cause := r.login(p, "3", "secret", r.now); out != many[5] || cause != "" {
			t.Errorf("one rests, and one is overdue: %q", cause)
		}
		if s, k := r.Counts(); s != 0 || k != 95 {
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
		r := newRoom(t, Limits{StrangersPerIP: 1, PerIP: 2})
		var unnamed []*conn
		for range 4 {
			p := &conn{room: r}
			if cause := r.Arrive(&p.seat, p, netip.Addr{}, "", r.now); cause != "" || r.went != nil {
				t.Fatal(cause)
			}
			unnamed = append(unnamed, p)
		}
		client := netip.MustParseAddr("192.0.2.1")
		if cause := r.Rename(&unnamed[0].seat, client, "", r.now); cause != "" {
			t.Error(cause)
		}
		if cause := r.Rename(&unnamed[1].seat, client, "", r.now); cause != "max_strangers_per_ip" {
			t.Errorf("%q", cause)
		}
		if cause := r.Rename(&unnamed[2].seat, client, account.Parent, r.now); cause != "" {
			t.Error(cause)
		}
		if cause := r.Rename(&unnamed[3].seat, client, account.Parent, r.now); cause != "max_connections_per_ip" {
			t.Errorf("%q", cause)
		}
		r.Leave(&unnamed[3].seat)
		if s, k := r.Counts(); s != 1 || k != 1 {
			t.Errorf("%d strangers, %d known", s, k)
		}
	})
	t.Run("the smallest relay", func(t *testing.T) {
		r := newRoom(t, Limits{Total: 1})
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
	var l Seldom
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
		if n, due := l.Due(c.cause, now); due != c.due || due && n != c.n {
			t.Errorf("step %d: %d %v", i, n, due)
		}
	}
}

// For HTTP, where a key comes with the first request: whoever comes gets a place, and
// an account that has all it can renews its own.
func TestPlacesAtOnce(t *testing.T) {
	r := newRoom(t, Limits{Total: 100, StrangersPerIP: 3, OwnGoes: true})
	r.l.Chance = 0
	oldest := r.seated("192.0.2.1", "")
	r.seated("192.0.2.1", "")
	r.seated("192.0.2.1", "")
	p, out, cause := r.comes("192.0.2.1", "")
	if out != oldest || cause != "" || out.loss != (Loss{"gave_way", out.ip, ""}) {
		t.Errorf("at once: %q", cause)
	}
	if full := r.now.Add(time.Minute / hurried); !p.showBy.Equal(full) {
		t.Errorf("it has until %v, want %v", p.showBy, full)
	}
	if _, cause := r.login(p, "2", "secret", r.now); cause != "" || !p.showBy.IsZero() {
		t.Errorf("it shows a key: %q, and has until %v", cause, p.showBy)
	}
	all := []*conn{p}
	for range 94 {
		all = append(all, r.loggedIn("192.0.2.2", "2"))
	}
	next := r.seated("192.0.2.3", "")
	if _, cause := r.login(next, "2", "secret", r.now); cause != "max_connections" {
		t.Errorf("all are busy: %q", cause)
	}
	all[7].resting = true
	if out, cause := r.login(next, "2", "secret", r.now); out != all[7] || cause != "" || out.loss != (Loss{"account_share", out.ip, "2"}) {
		t.Errorf("one rests: %q", cause)
	}
	for _, c := range all {
		r.Leave(&c.seat)
	}
	r.Leave(&next.seat)
	if s, k := r.Counts(); s+k != 2 { // of those that came first
		t.Errorf("%d strangers, %d known", s, k)
	}
	for range 2 {
		r.Leave(r.crowd.oldest())
	}
	if len(r.origins)+len(r.holders)+len(r.crowd) != 0 {
		t.Errorf("remembered of nobody: %+v", r.Pool)
	}
}
