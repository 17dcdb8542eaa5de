package deliver

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/domain"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/smtp"
	"tlsrelay/relay/relaytest"
)

// deliverOne delivers and demands the fate.
func deliverOne(t *testing.T, e *Engine, s policy.Sender, fate string) relay.Result {
	t.Helper()
	r := e.Deliver(context.Background(), jobTo(t, s))
	if how(r) != fate {
		t.Fatalf("%s, want %s: %+v", how(r), fate, failureOf(r))
	}
	return r
}

// TestPoolRejudges: an idle session carries a message only if what it
// achieved satisfies that message.
func TestPoolRejudges(t *testing.T) {
	w := relaytest.Start(t)
	t.Run("certificate", func(t *testing.T) {
		h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{SelfSigned: true}}})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeO, "tls")
		deliverOne(t, e, modeT, "tls")
		if h.Connections() != 1 {
			t.Errorf("%d connections for O and T", h.Connections())
		}
		deliverOne(t, e, modeV, "block")
		if h.Connections() != 2 || h.Accepted() != 2 {
			t.Errorf("%d connections, %d messages after V", h.Connections(), h.Accepted())
		}
	})
	t.Run("version", func(t *testing.T) {
		h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{MaxVersion: uint16(policy.TLS11)}})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeO, "tls")
		deliverOne(t, e, floor(policy.TLS11), "tls")
		deliverOne(t, e, floor(policy.TLS12), "block")
		if h.Accepted() != 2 {
			t.Errorf("%d messages", h.Accepted())
		}
	})
	t.Run("clear", func(t *testing.T) {
		h := w.Host(t, "mx1.example.test", relaytest.Script{NoTLS: true})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeO, "clear")
		deliverOne(t, e, modeO, "clear")
		if h.Connections() != 1 {
			t.Errorf("%d connections in clear", h.Connections())
		}
		deliverOne(t, e, modeT, "block")
		if h.Accepted() != 2 {
			t.Errorf("%d messages", h.Accepted())
		}
	})
	t.Run("phase 2 is not kept", func(t *testing.T) {
		broken := relaytest.Script{TLS: relaytest.TLS{Alert: 80}}
		h := w.Host(t, "mx1.example.test", broken, broken, broken, relaytest.Script{})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeO, "clear")
		deliverOne(t, e, modeO, "tls") // offered TLS again, and it works now
		if h.Connections() != 4 {
			t.Errorf("%d connections", h.Connections())
		}
	})
	t.Run("forward secrecy", func(t *testing.T) {
		h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{
			MaxVersion: uint16(policy.TLS12), CipherSuites: []uint16{0x009c}, Cert: &relaytest.Cert{Names: []string{"mx1.example.test"}, Key: relaytest.KeyRSA2048},
		}})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeV, "tls")
		s := modeT
		s.Account.ForwardSecrecy = true
		deliverOne(t, e, s, "block")
	})
	t.Run("cipher suite", func(t *testing.T) {
		h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{
			MaxVersion: uint16(policy.TLS12), CipherSuites: []uint16{0xc012}, Cert: &relaytest.Cert{Names: []string{"mx1.example.test"}, Key: relaytest.KeyRSA2048},
		}})
		e := engine(t, w, routeTo(h))
		deliverOne(t, e, modeO, "tls") // 3DES, which is better than nothing
		deliverOne(t, e, modeT, "block")
		deliverOne(t, e, modeO, "tls")
		if h.Accepted() != 2 {
			t.Errorf("%d messages", h.Accepted())
		}
	})
}

// TestPoolInTurn: an idle session in clear is used in its host's turn, not
// ahead of a better host that has TLS.
func TestPoolInTurn(t *testing.T) {
	w := relaytest.Start(t)
	full := relaytest.Script{Greeting: relaytest.Reply{Code: 421}}
	first := w.Host(t, "mx1.example.test", full, relaytest.Script{})
	second := w.Host(t, "mx2.example.test", relaytest.Script{NoTLS: true})
	e := engine(t, w, routeTo(first, second))
	deliverOne(t, e, modeO, "clear")
	deliverOne(t, e, modeO, "tls")
	if first.Accepted() != 1 || second.Accepted() != 1 {
		t.Errorf("%d and %d messages", first.Accepted(), second.Accepted())
	}
}

// TestPoolNames: the names that count differ by recipient domain, on the very
// same session.
func TestPoolNames(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"example.test"}}}})
	here := routeTo(h)
	there := routeTo(h)
	there.Hosts[0].Facts.Recipient = domain.MustParse("elsewhere.test")
	e := engine(t, w, here)
	deliverOne(t, e, modeV, "tls")
	e.router = router{route: there}
	deliverOne(t, e, modeT, "tls") // the same session
	if h.Connections() != 1 {
		t.Errorf("%d connections", h.Connections())
	}
	if r := deliverOne(t, e, modeV, "block"); failureOf(r).Reason != events.CertName {
		t.Errorf("%+v", failureOf(r))
	}
	e.router = router{route: here}
	deliverOne(t, e, modeV, "tls")
}

// TestPoolKeepsHostsApart: one address under two names is two hosts.
func TestPoolKeepsHostsApart(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeV, "tls")
	other := routeTo(h)
	other.Hosts[0] = hostAt("mx9.other.test", h.Addr())
	other.Hosts[0].Facts.Recipient = domain.MustParse("other.test")
	e.router = router{route: other}
	deliverOne(t, e, modeV, "block")
	if h.Connections() != 2 {
		t.Errorf("%d connections", h.Connections())
	}
}

// TestDeadIdleSession: a session that the host closed while idle costs a new
// connection, and is no evidence.
func TestDeadIdleSession(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeT, "tls")
	h.HangUp()
	r := deliverOne(t, e, modeT, "tls")
	if len(r.Attempt.Hosts) != 1 || h.Connections() != 2 {
		t.Errorf("%d connections, evidence %+v", h.Connections(), r.Attempt.Hosts)
	}
}

// TestDiesOnMail: the same when the host hangs up in answer to MAIL, which no
// look at the socket can see coming.
func TestDiesOnMail(t *testing.T) {
	for way, keywords := range ways {
		for _, words := range []string{"", "421 4.4.2 idle too long\r\n"} {
			for _, cold := range []bool{false, true} {
				// All of the message is out before anything is answered: it may
				// have arrived, so it must not be sent twice at once.
				unknown := way == "one-flight" && words == "" && !cold
				diesOnMail(t, fmt.Sprintf("%s %q cold %v", way, words, cold), keywords, words, cold, unknown)
			}
		}
	}
}

// age makes the idle sessions of e older.
func age(e *Engine, by time.Duration) {
	for _, s := range e.pool.Idle() {
		s.IdleSince = s.IdleSince.Add(-by)
	}
}

// diesOnMail plays a host that leaves with words on the second MAIL of every
// connection.
func diesOnMail(t *testing.T, way string, keywords []string, words string, cold, unknown bool) {
	t.Helper()
	var mu sync.Mutex
	var taken, connections int
	addr := rawHost(t, func(c net.Conn) {
		mu.Lock()
		connections++
		mu.Unlock()
		mails := 0
		in := bufio.NewReader(c)
		io.WriteString(c, "220 mx1.example.test\r\n")
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			switch verb, arg, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
			case "EHLO":
				io.WriteString(c, "250-hello\r\n250-"+strings.Join(keywords, "\r\n250-")+"\r\n250 XYZ\r\n")
			case "MAIL":
				if mails++; mails == 2 {
					io.WriteString(c, words)
					return
				}
				io.WriteString(c, "250 ok\r\n")
			case "DATA":
				io.WriteString(c, "354 go\r\n")
				for line != ".\r\n" {
					if line, err = in.ReadString('\n'); err != nil {
						return
					}
				}
				mu.Lock()
				taken++
				mu.Unlock()
				io.WriteString(c, "250 taken\r\n")
			case "BDAT":
				n, _ := strconv.Atoi(strings.Fields(arg)[0])
				io.CopyN(io.Discard, in, int64(n))
				mu.Lock()
				if strings.HasSuffix(arg, "LAST") {
					taken++
				}
				mu.Unlock()
				io.WriteString(c, "250 taken\r\n")
			case "QUIT":
				return
			default:
				io.WriteString(c, "250 ok\r\n")
			}
		}
	})
	route := routeTo()
	route.Hosts = append(route.Hosts, hostAt("mx1.example.test", addr))
	e := engine(t, &relaytest.World{CA: relaytest.Start(t).CA}, route)
	want := 0
	for i := range 3 {
		if cold {
			age(e, smtp.ColdAfter)
		} else {
			age(e, -time.Minute) // warm, however slow this machine is
		}
		r := e.Deliver(context.Background(), jobTo(t, modeO))
		fate := "clear"
		if unknown && i == 1 {
			fate = "defer"
			if f := failureOf(r); f.Status != "4.4.2" || f.Reason != events.SessionLost {
				t.Errorf("%s: %+v", way, f)
			}
		} else {
			want++
		}
		if how(r) != fate || len(r.Attempt.Hosts) != 1 {
			t.Errorf("%s: message %d: %s %+v, want %s", way, i, how(r), r.Attempt.Hosts, fate)
		}
	}
	mu.Lock()
	if taken != want || connections != want {
		t.Errorf("%s: %d messages over %d connections, want %d", way, taken, connections, want)
	}
	mu.Unlock()
}

// rawHost serves every connection with f and closes it then.
func rawHost(t *testing.T, f func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				f(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// TestIdleTimeout: Run closes idle sessions, politely.
func TestIdleTimeout(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h), func(o *Options) { o.IdleTimeout = 50 * time.Millisecond })
	deliverOne(t, e, modeT, "tls")
	ctx, cancel := context.WithTimeout(context.Background(), relaytest.Patience)
	defer cancel()
	if err := h.WaitFor(ctx, func() bool { return h.Open() == 0 }); err != nil {
		t.Fatal(err)
	}
	commands := h.Sessions()[0].Commands
	if last := commands[len(commands)-1].Line; last != "QUIT" {
		t.Errorf("left with %q", last)
	}
}

// TestBounds: never more connections than allowed, and everybody is served.
func TestBounds(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"per host": func(o *Options) { o.MaxPerHost = 2 },
		"in all":   func(o *Options) { o.MaxConnections = 3 },
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			slow := relaytest.Script{End: relaytest.Reply{Delay: 2 * time.Millisecond}, MaxConnections: 2}
			if name == "in all" {
				slow.MaxConnections = 3
			}
			h1, h2 := w.Host(t, "mx1.example.test", slow), w.Host(t, "mx2.example.test", slow)
			e := engine(t, w, routeTo(h1), change)
			e2 := &Engine{o: e.o, router: router{route: routeTo(h2)}, log: e.log, pool: e.pool, metrics: e.metrics, client: e.client}
			var wg sync.WaitGroup
			for i := range 40 {
				wg.Go(func() {
					target := e
					if i%2 == 1 {
						target = e2
					}
					if r := target.Deliver(context.Background(), jobTo(t, modeT)); how(r) != "tls" {
						t.Errorf("%+v", failureOf(r))
					}
				})
			}
			wg.Wait()
			if n := h1.Accepted() + h2.Accepted(); n != 40 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// TestSource: the local address is of the family dialled, and always the same.
func TestSource(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	e := New(Options{SourceAddresses: []netip.Addr{four}}, router{}, nil, nil)
	if a, ok := e.source(netip.MustParseAddr("198.51.100.1")); !ok || a != four {
		t.Errorf("%v %v", a, ok)
	}
	if _, ok := e.source(netip.MustParseAddr("2001:db8::2")); ok {
		t.Error("dials IPv6 from an IPv4 address")
	}
	e.o.SourceAddresses = []netip.Addr{six, four, netip.MustParseAddr("192.0.2.2")}
	first, _ := e.source(netip.MustParseAddr("198.51.100.1"))
	for range 10 {
		if a, ok := e.source(netip.MustParseAddr("198.51.100.1")); !ok || a != first || !a.Is4() {
			t.Errorf("%v after %v", a, first)
		}
	}
}
