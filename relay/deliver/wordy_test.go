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

	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

// mini is a small host in clear whose every word a test can choose.
type mini struct {
	keywords []string
	// on gives what is said at a step in place of the usual; "" is the usual, "close" hangs up.
	on func(c *miniConn, step, arg string) string
	// also is said beside it, after delay.
	also  func(c *miniConn, step, arg string) string
	delay time.Duration

	mu    sync.Mutex
	taken [][]string // recipients of each message
	subj  []string
	cmds  [][]string
	conns int
}

type miniConn struct {
	*mini
	net.Conn
	in    *bufio.Reader
	mail  bool
	rcpts []string
	body  []byte
	msgs  int
	ehlos int
	n     int
}

func (m *mini) times(rcpt string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rs := range m.taken {
		for _, r := range rs {
			if r == rcpt {
				n++
			}
		}
	}
	return n
}

func (c *miniConn) say(step, arg, usual string) (code string, ok bool) {
	out := usual
	if c.on != nil {
		if s := c.on(c, step, arg); s != "" {
			out = s
		}
	}
	if out == "close" {
		return "", false
	}
	last := strings.TrimSuffix(out, "\r\n")
	if i := strings.LastIndex(last, "\r\n"); i >= 0 {
		last = last[i+2:]
	}
	if _, err := io.WriteString(c, strings.TrimSuffix(out, "\r\n")+"\r\n"); err != nil {
		return "", false
	}
	if c.also != nil {
		if s := c.also(c, step, arg); s != "" {
			time.Sleep(c.delay)
			io.WriteString(c, s)
		}
	}
	if len(last) < 3 || strings.HasPrefix(last, "421") {
		return last, len(last) < 3
	}
	return last[:3], true
}

func (c *miniConn) end() bool {
	out := "250 2.0.0 Ok: queued as A1"
	if c.on != nil {
		if s := c.on(c, "end", ""); s != "" {
			out = s
		}
	}
	lines := strings.Split(strings.TrimSuffix(out, "\r\n"), "\r\n")
	if out != "close" && lines[len(lines)-1][0] == '2' {
		c.mu.Lock()
		c.taken = append(c.taken, c.rcpts)
		c.subj = append(c.subj, string(c.body))
		c.mu.Unlock()
		c.msgs++
	}
	c.mail, c.rcpts, c.body = false, nil, nil
	if out == "close" {
		return false
	}
	io.WriteString(c, out+"\r\n")
	if c.also != nil {
		if s := c.also(c, "end", ""); s != "" {
			time.Sleep(c.delay)
			io.WriteString(c, s)
		}
	}
	return !strings.HasPrefix(out, "421")
}

func (m *mini) serve(nc net.Conn) {
	m.mu.Lock()
	n := m.conns
	m.conns++
	m.cmds = append(m.cmds, nil)
	m.mu.Unlock()
	c := &miniConn{mini: m, Conn: nc, in: bufio.NewReader(nc), n: n}
	if _, ok := c.say("greeting", "", "220 mx ESMTP"); !ok {
		return
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		m.mu.Lock()
		m.cmds[n] = append(m.cmds[n], line)
		m.mu.Unlock()
		verb, arg, _ := strings.Cut(line, " ")
		ok := true
		var code string
		switch strings.ToUpper(verb) {
		case "EHLO":
			c.ehlos++
			c.mail, c.rcpts, c.body = false, nil, nil
			list := "250 mx"
			if len(m.keywords) > 0 {
				list = "250-mx"
				for i, k := range m.keywords {
					sep := "-"
					if i == len(m.keywords)-1 {
						sep = " "
					}
					list += "\r\n250" + sep + k
				}
			}
			_, ok = c.say("ehlo", arg, list)
		case "RSET":
			c.mail, c.rcpts, c.body = false, nil, nil
			_, ok = c.say("rset", arg, "250 2.0.0 Ok")
		case "MAIL":
			code, ok = c.say("mail", arg, "250 2.1.0 Ok")
			c.mail = strings.HasPrefix(code, "2")
		case "RCPT":
			if !c.mail {
				_, ok = c.say("nomail", arg, "503 5.5.1 MAIL first")
				break
			}
			a := arg[strings.Index(arg, "<")+1 : strings.Index(arg, ">")]
			code, ok = c.say("rcpt", a, "250 2.1.5 Ok")
			if strings.HasPrefix(code, "2") {
				c.rcpts = append(c.rcpts, a)
			}
		case "DATA":
			if len(c.rcpts) == 0 {
				_, ok = c.say("nodata", "", "503 5.5.1 no valid recipients")
				break
			}
			if code, ok = c.say("data", "", "354 go"); code != "354" {
				break
			}
			for {
				l, err := c.in.ReadString('\n')
				if err != nil {
					return
				}
				if l == ".\r\n" {
					break
				}
				c.body = append(c.body, l...)
			}
			ok = c.end()
		case "BDAT":
			f := strings.Fields(arg)
			size, _ := strconv.Atoi(f[0])
			b := make([]byte, size)
			if _, err := io.ReadFull(c.in, b); err != nil {
				return
			}
			c.body = append(c.body, b...)
			switch {
			case len(c.rcpts) == 0:
				_, ok = c.say("nobdat", "", "503 5.5.1 no valid recipients")
			case len(f) > 1:
				ok = c.end()
			default:
				_, ok = c.say("bdat", "", "250 2.0.0 "+f[0]+" octets received")
			}
		case "QUIT":
			c.say("quit", "", "221 bye")
			return
		default:
			_, ok = c.say("unknown", line, "500 5.5.2 unknown")
		}
		if !ok {
			return
		}
	}
}

var (
	kwBoth  = []string{"PIPELINING", "CHUNKING", "SIZE"}
	kwPipe  = []string{"PIPELINING", "SIZE"}
	kwChunk = []string{"CHUNKING", "SIZE"}
	kwNone  = []string{"SIZE"}
)

func (m *mini) start(t *testing.T, change ...func(*Options)) *Engine {
	t.Helper()
	addr := rawHost(t, m.serve)
	return miniEngine(t, change, addr)
}

func miniEngine(t *testing.T, change []func(*Options), addrs ...netip.AddrPort) *Engine {
	t.Helper()
	route := routeTo()
	for i, a := range addrs {
		route.Hosts = append(route.Hosts, hostAt(fmt.Sprintf("mx%d.example.test", i+1), a))
	}
	return engine(t, relaytest.Start(t), route, change...)
}

func miniAddr(e *Engine, i int) netip.AddrPort { return e.router.(router).route.Hosts[i].Addrs[0] }

// deliverAndNote delivers once what of job still waits, and settles what came of it.
func deliverAndNote(e *Engine, job *Job) relay.Result {
	r := e.Deliver(context.Background(), *job)
	job.Delivery.Last = &r.Attempt
	job.Delivery.History = r.History
	return r
}

func settledAll(r relay.Result) bool {
	for _, o := range r.Outcomes {
		if o.Failure != nil && o.Failure.Class == relay.Temporary {
			return false
		}
	}
	return true
}

func tell(r relay.Result) (s []string) {
	for _, o := range r.Outcomes {
		if o.Failure == nil {
			s = append(s, "delivered")
		} else {
			s = append(s, fmt.Sprintf("%s %s %s %q", o.Failure.Class, o.Failure.Reason, o.Failure.Status, o.Failure.Reply.String()))
		}
	}
	return s
}

// a host that says thanks after each message, and a message with one bad recipient.
func TestThanksAfterEachMessage(t *testing.T) {
	for name, kw := range map[string][]string{"both": kwBoth, "pipe": kwPipe, "chunk": kwChunk, "none": kwNone} {
		t.Run(name, func(t *testing.T) {
			m := &mini{keywords: kw,
				on: func(_ *miniConn, step, arg string) string {
					if step == "rcpt" && arg == "bad@example.test" {
						return "550 5.1.1 who"
					}
					return ""
				},
				also: func(_ *miniConn, step, _ string) string {
					if step == "end" {
						return "250 2.0.0 thanks\r\n"
					}
					return ""
				}}
			e := m.start(t, hasty)
			job := jobTo(t, modeO, "bad@example.test", "good@example.test")
			for i := range 6 {
				r := deliverAndNote(e, &job)
				if settledAll(r) {
					t.Logf("settled after %d: %v; copies %d", i+1, tell(r), m.times("good@example.test"))
					break
				}
				t.Log(tell(r))
			}
			if n := m.times("good@example.test"); n > 2 {
				t.Errorf("%d copies", n)
			}
		})
	}
}

// a host that refuses the second EHLO of a session, and hangs up then (or does not answer QUIT).
func TestSecondEHLORefused(t *testing.T) {
	for _, how := range []string{"503 refused, closed", "503 refused, QUIT unanswered", "list differs, QUIT unanswered"} {
		for name, kw := range map[string][]string{"both": kwBoth, "pipe": kwPipe, "none": kwNone} {
			t.Run(how+"/"+name, func(t *testing.T) {
				m := &mini{keywords: kw}
				m.on = func(c *miniConn, step, arg string) string {
					switch {
					case step == "ehlo" && c.ehlos > 1 && how == "503 refused, closed":
						io.WriteString(c, "503 5.5.1 Duplicate EHLO\r\n")
						return "close"
					case step == "ehlo" && c.ehlos > 1 && how == "503 refused, QUIT unanswered":
						return "503 5.5.1 Duplicate EHLO"
					case step == "ehlo" && c.ehlos > 1:
						return "250-mx hello again\r\n250 SIZE"
					case step == "quit":
						return "close"
					case step == "rcpt" && arg == "bad@example.test":
						return "550 5.1.1 who"
					}
					return ""
				}
				e := m.start(t, hasty)
				for _, rcpts := range [][]string{{"good@example.test"}, {"bad@example.test", "fine@example.test"}} {
					job := jobTo(t, modeO, rcpts...)
					who := rcpts[len(rcpts)-1]
					for range 5 {
						r := deliverAndNote(e, &job)
						if settledAll(r) {
							break
						}
						t.Log(tell(r))
					}
					if n := m.times(who); n != 1 {
						t.Errorf("%s: %d copies", who, n)
					}
				}
			})
		}
	}
}

// an EHLO without keywords, and a QUIT that is answered by 250.
func TestQuitAnsweredBy250(t *testing.T) {
	m := &mini{}
	m.on = func(c *miniConn, step, arg string) string {
		switch {
		case step == "quit":
			return "250 bye"
		case step == "rcpt" && arg == "bad@example.test":
			return "550 5.1.1 who"
		}
		return ""
	}
	e := m.start(t, hasty)
	job := jobTo(t, modeO, "bad@example.test", "fine@example.test")
	for range 5 {
		r := deliverAndNote(e, &job)
		if settledAll(r) {
			break
		}
		t.Log(tell(r))
	}
	if n := m.times("fine@example.test"); n != 1 {
		t.Errorf("%d copies", n)
	}
}

// a proxy that answers RCPT in place of its backend and passes on the backend's answer as well.
func TestNobodyBouncesForAnother(t *testing.T) {
	for name, kw := range map[string][]string{"both": kwBoth, "pipe": kwPipe, "chunk": kwChunk, "none": kwNone} {
		for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
			t.Run(fmt.Sprint(name, delay), func(t *testing.T) {
				m := &mini{keywords: kw, delay: delay}
				bad := func(arg string) bool { return arg == "bad@example.test" }
				m.on = func(c *miniConn, step, arg string) string {
					if step == "rcpt" && bad(arg) {
						return "550 5.1.1 who"
					}
					return ""
				}
				m.also = func(c *miniConn, step, arg string) string {
					switch {
					case step == "rcpt" && bad(arg):
						return "550 5.1.1 who\r\n"
					case step == "rcpt":
						return "250 2.1.5 Ok\r\n"
					}
					return ""
				}
				e := m.start(t, hasty)
				job := jobTo(t, modeO, "bad@example.test", "good@example.test")
				var r relay.Result
				for range 4 {
					r = deliverAndNote(e, &job)
					t.Log(tell(r), "copies", m.times("good@example.test"))
					if f := r.Outcomes[1].Failure; f != nil && f.Class == relay.Permanent {
						t.Fatalf("the good recipient is bounced: %+v", f)
					}
					if settledAll(r) {
						return
					}
				}
			})
		}
	}
}

// one surplus yes after MAIL, and content that is put off.
func TestNobodyBouncesWhenPutOff(t *testing.T) {
	m := &mini{keywords: kwBoth, delay: 20 * time.Millisecond}
	m.on = func(c *miniConn, step, arg string) string {
		switch {
		case step == "rcpt" && arg == "bad@example.test":
			time.Sleep(20 * time.Millisecond)
			return "550 5.1.1 who"
		case step == "rcpt":
			time.Sleep(20 * time.Millisecond)
		case step == "bdat":
			return "451 4.7.1 greylisted"
		}
		return ""
	}
	m.also = func(c *miniConn, step, arg string) string {
		if step == "mail" {
			return "250 2.1.0 Ok\r\n"
		}
		return ""
	}
	e := m.start(t, hasty)
	r := e.Deliver(context.Background(), jobTo(t, modeO, "bad@example.test", "good@example.test"))
	t.Log(tell(r))
	if f := r.Outcomes[1].Failure; f != nil && f.Class == relay.Permanent {
		t.Errorf("the good recipient is bounced: %+v", f)
	}
}

// a host that says yes and, a moment later, no to a message. The next message is nobody's fault.
func TestNextMessageIsNotBounced(t *testing.T) {
	for name, kw := range map[string][]string{"both": kwBoth, "pipe": kwPipe, "chunk": kwChunk, "none": kwNone} {
		t.Run(name, func(t *testing.T) {
			m := &mini{keywords: kw}
			first := true
			m.also = func(c *miniConn, step, arg string) string {
				// what the scanner says of the first message comes when the second one begins
				if step == "end" && c.msgs == 2 && first {
					first = false
					go func() {
						time.Sleep(20 * time.Millisecond)
						io.WriteString(c, "554 5.7.1 the scanner found a virus\r\n")
					}()
				}
				return ""
			}
			m.on = func(c *miniConn, step, arg string) string {
				if step == "mail" && c.msgs == 2 {
					time.Sleep(60 * time.Millisecond) // slower than the scanner
				}
				return ""
			}
			e := m.start(t, hasty)
			for i := range 3 {
				job := jobTo(t, modeO)
				if name == "both" {
					job.Body = body(strings.Repeat("x\r\n", 100<<10)) // over oneFlight
				}
				r := e.Deliver(context.Background(), job)
				t.Log(tell(r))
				if how(r) == "bounce" {
					t.Fatalf("message %d: %+v", i, failureOf(r))
				}
			}
		})
	}
}

// content that could name recipients goes by BDAT to an unproven address when it is big.
func TestBigContentRunAsCommands(t *testing.T) {
	w := relaytest.Start(t)
	for _, kw := range [][]string{{"CHUNKING"}, {"PIPELINING", "CHUNKING"}} {
		h := w.Host(t, "mx1.example.test", relaytest.Script{ChunkAsCommands: true, Keywords: kw})
		e := engine(t, w, routeTo(h), hasty)
		job := jobTo(t, modeT)
		job.Body = body("RSET\r\nMAIL FROM:<president@bank.test>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\nSubject: forged\r\n\r\nforged\r\n.\r\n" + strings.Repeat("x\r\n", 100<<10))
		r := e.Deliver(context.Background(), job)
		for _, m := range h.Messages() {
			if m.From == "president@bank.test" {
				t.Errorf("%v: smuggled: %s to %v", kw, m.From, m.To)
			}
		}
		t.Log(tell(r), len(h.Messages()))
	}
}

// what a session carried before the host left for another reason is no limit.
func TestLimitThatIsNone(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{MaxRefused: 2, Rcpts: map[string]relaytest.Reply{
		"a@example.test": {Code: 550, Text: "5.1.1 who"}, "b@example.test": {Code: 550, Text: "5.1.1 who"},
	}})
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeT, "tls")
	e.Deliver(context.Background(), jobTo(t, modeT, "a@example.test", "b@example.test", "a@example.test", "good@example.test"))
	if p := e.client.Peers.Get(h.Addr()); p.Carries != 0 {
		t.Errorf("carries %d", p.Carries)
	}
}

// nor is what another host's session carried.
func TestLimitOfAnother(t *testing.T) {
	w := relaytest.Start(t)
	first := w.Host(t, "mx1.example.test", relaytest.Script{MaxMails: 1}, relaytest.Script{Greeting: relaytest.Reply{Code: 421, Text: "4.3.2 busy"}})
	second := w.Host(t, "mx2.example.test")
	e := engine(t, w, routeTo(first, second))
	deliverOne(t, e, modeT, "tls")
	deliverOne(t, e, modeT, "tls")
	if p := e.client.Peers.Get(second.Addr()); p.Carries != 0 || second.Accepted() != 1 {
		t.Errorf("second host carries %d, %d messages", p.Carries, second.Accepted())
	}
}

// a surplus 502 after RCPT, and a message that is taken.
func TestTakenOnceBesideASurplusNo(t *testing.T) {
	w := relaytest.Start(t)
	for _, code := range []string{"500", "502", "503", "504"} {
		h := w.Host(t, "mx1.example.test")
		e := engine(t, w, routeTo(h), hasty)
		proven(t, e, h)
		h.SetScript(relaytest.Script{Surplus: map[string]relaytest.Surplus{"rcpt": {Raw: code + " 5.5.1 what\r\n"}}})
		before := h.Accepted()
		r := e.Deliver(context.Background(), jobTo(t, modeT))
		if n := h.Accepted() - before; n > 1 {
			t.Errorf("%s: taken %d times: %v %q", code, n, tell(r), verbs(h))
		} else if n == 1 && how(r) == "bounce" {
			t.Errorf("%s: taken, and told as bounced: %v", code, tell(r))
		}
	}
}

// a proxy whose backend answers RCPT a moment later gets its mail.
func TestLateProxy(t *testing.T) {
	for name, kw := range map[string][]string{"both": kwBoth, "pipe": kwPipe, "chunk": kwChunk, "none": kwNone} {
		for _, step := range []string{"mail", "rcpt", "data"} {
			for _, end := range []string{"", "554 5.7.1 spam"} {
				t.Run(name+"/"+step+"/"+end, func(t *testing.T) {
					m := &mini{keywords: kw, delay: 20 * time.Millisecond}
					m.also = func(c *miniConn, s, arg string) string {
						if s == step {
							return "250 2.1.5 Ok\r\n"
						}
						return ""
					}
					m.on = func(c *miniConn, s, arg string) string {
						if s == "end" {
							return end
						}
						return ""
					}
					e := m.start(t, hasty)
					job := jobTo(t, modeO)
					for i := range 8 {
						r := deliverAndNote(e, &job)
						if end != "" && r.Outcomes[0].Failure == nil {
							t.Fatal("told as delivered")
						}
						if settledAll(r) {
							t.Logf("settled at attempt %d: %v, %d copies", i+1, tell(r), m.times("bob@example.test"))
							return
						}
					}
					m.mu.Lock()
					defer m.mu.Unlock()
					t.Errorf("not settled after 8 attempts; %d copies, %d connections; last %q", len(m.taken), m.conns, m.cmds[len(m.cmds)-1])
				})
			}
		}
	}
}
