package deliver

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/deliver/peer"
	"tlsrelay/relay/relaytest"
)

// refused mail told as delivered: surplus yes, and a refusal by 421 or by hanging up.
func TestRefusedByLeaving(t *testing.T) {
	for name, kw := range map[string][]string{"both": kwBoth, "chunk": kwChunk, "pipe": kwPipe, "none": kwNone} {
		for _, end := range []string{"421 4.3.0 disk full, closing", "close"} {
			for _, extra := range []string{"250 2.1.5 Ok\r\n", "250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n"} {
				for _, step := range []string{"mail", "rcpt", "bdat"} {
					for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
						for _, known := range []bool{false, true} {
							t.Run(fmt.Sprintf("%s/%s/%d/%s/%d/%v", name, end[:3], len(extra)/14, step, delay, known), func(t *testing.T) {
								var on atomic.Bool
								m := &mini{keywords: kw, delay: delay}
								m.also = func(c *miniConn, s, arg string) string {
									if s == step && on.Load() {
										return extra
									}
									return ""
								}
								m.on = func(c *miniConn, s, arg string) string {
									if s == "end" && on.Load() {
										return end
									}
									return ""
								}
								e := m.start(t, hasty)
								if known {
									deliverOne(t, e, modeO, "clear")
									forgetSessions(e)
								}
								on.Store(true)
								for i := range 2 {
									job := jobTo(t, modeO)
									if i == 1 || known {
										job.Body = body("Subject: x\r\n\r\nRCPT yourself\r\n")
									}
									r := e.Deliver(context.Background(), job)
									if r.Outcomes[0].Failure == nil {
										m.mu.Lock()
										t.Errorf("attempt %d told as delivered: %q", i, m.cmds[len(m.cmds)-1])
										m.mu.Unlock()
									}
								}
							})
						}
					}
				}
			}
		}
	}
}

// the answer to a chunk that is not the last is worded as that to the message, and chunks is over.
func TestChunkWordedAlike(t *testing.T) {
	var on atomic.Bool
	m := &mini{keywords: kwBoth, delay: 20 * time.Millisecond}
	m.also = func(c *miniConn, s, arg string) string {
		if s == "rcpt" && on.Load() {
			return "250 2.1.5 Ok\r\n"
		}
		return ""
	}
	m.on = func(c *miniConn, s, arg string) string {
		switch {
		case s == "bdat":
			return "250 2.0.0 Message ok"
		case s == "end" && on.Load():
			return "554 5.7.1 spam"
		case s == "end":
			return "250 2.0.0 Message ok"
		}
		return ""
	}
	e := m.start(t, hasty)
	deliverOne(t, e, modeO, "clear")
	e.pool.Reap()
	// A day later.
	e.client.Peers.Change(miniAddr(e, 0), func(p *peer.Traits, _ time.Time) { p.Chunks = time.Now().Add(-time.Second) })
	on.Store(true)
	if r := e.Deliver(context.Background(), jobTo(t, modeO)); r.Outcomes[0].Failure == nil {
		t.Errorf("told as delivered; taken %d", len(m.taken))
	}
}

// a host that is down for everybody and takes its time to say so.
func TestSlowRefusals(t *testing.T) {
	w := relaytest.Start(t)
	first := w.Host(t, "mx1.example.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421, Text: "4.3.2 busy", Delay: 300 * time.Millisecond}})
	second := w.Host(t, "mx2.example.test")
	e := engine(t, w, routeTo(first, second))
	begin := time.Now()
	burst(t, e, 20, 20)
	t.Log(time.Since(begin), first.Connections(), second.Accepted())
	if time.Since(begin) > 2*time.Second {
		t.Errorf("%v for what takes 300 ms", time.Since(begin))
	}
}

// a host that takes five connections, one message each, and notices a close 20 ms late.
func TestLateNoticeOfAClose(t *testing.T) {
	for _, most := range []int{5, 2, 1} {
		t.Run(fmt.Sprint(most), func(t *testing.T) {
			var open atomic.Int32
			m := &mini{keywords: kwBoth}
			m.on = func(c *miniConn, s, _ string) string {
				if s == "end" {
					time.Sleep(5 * time.Millisecond)
				}
				return ""
			}
			addr := rawHost(t, func(c net.Conn) {
				if int(open.Add(1)) > most {
					open.Add(-1)
					io.WriteString(c, "421 4.7.0 too many connections\r\n")
					return
				}
				m.serve(c)
				time.Sleep(20 * time.Millisecond)
				open.Add(-1)
			})
			e := miniEngine(t, []func(*Options){func(o *Options) { o.MaxMessages = 1 }}, addr)
			var mu sync.Mutex
			var wg sync.WaitGroup
			failed, lowest := 0, 100
			for range 10 {
				wg.Go(func() {
					for range 6 {
						r := e.Deliver(context.Background(), jobTo(t, modeO))
						mu.Lock()
						if how(r) != "clear" {
							failed++
						}
						if c := e.pool.At(addr); c.Limit > 0 {
							lowest = min(lowest, c.Limit)
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			t.Logf("%d of 60 failed; lowest limit %d; at the end %+v", failed, lowest, e.pool.At(addr))
			if failed > 0 {
				t.Errorf("%d of 60 failed", failed)
			}
		})
	}
}

// two host names at one address that takes one connection.
func TestTwoNamesAtOneAddress(t *testing.T) {
	var open atomic.Int32
	m := &mini{keywords: kwBoth}
	addr := rawHost(t, func(c net.Conn) {
		if open.Add(1) > 1 {
			open.Add(-1)
			io.WriteString(c, "421 4.7.0 too many connections\r\n")
			return
		}
		m.serve(c)
		time.Sleep(5 * time.Millisecond)
		open.Add(-1)
	})
	e := miniEngine(t, nil, addr)
	route := routeTo()
	route.Hosts = append(route.Hosts, hostAt("mx.other.test", addr))
	e2 := &Engine{o: e.o, router: router{route: route}, log: e.log, pool: e.pool, metrics: e.metrics, client: e.client, nameRefusers: e.nameRefusers}
	for i := range 6 {
		target := e
		if i%2 == 1 {
			target = e2
		}
		if r := target.Deliver(context.Background(), jobTo(t, modeO)); how(r) != "clear" {
			t.Errorf("message %d: %v", i, tell(r))
		}
	}
}

// a host in trouble says 421 to the first RCPT; a message for many.
func TestTroubleIsSeen(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{Rcpt: relaytest.Reply{Code: 421, Text: "4.3.2 bye"}})
	var to []string
	for i := range 10 {
		to = append(to, fmt.Sprintf("r%d@example.test", i))
	}
	r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeT, to...))
	if r.Feedback != relay.Trouble {
		t.Errorf("%d connections, feedback %q", h.Connections(), r.Feedback)
	}
}

// on a fresh session, 421 to the third unknown recipient says nothing of it.
func TestRefusalsThen421(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{MaxRefused: 2, Rcpts: map[string]relaytest.Reply{
		"a@example.test": {Code: 550, Text: "5.1.1 who"}, "b@example.test": {Code: 550, Text: "5.1.1 who"},
	}})
	r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeT, "a@example.test", "b@example.test", "good@example.test"))
	t.Log(tell(r), h.Connections())
	if f := r.Outcomes[2].Failure; f != nil {
		t.Errorf("the good one waits: %+v", f)
	}
}

// Exim's words.
func TestWordsOfExim(t *testing.T) {
	m := &mini{keywords: kwPipe}
	i := 0
	m.on = func(c *miniConn, s, _ string) string {
		switch s {
		case "mail":
			return "250 OK"
		case "rcpt":
			return "250 Accepted"
		case "end":
			i++
			return fmt.Sprintf("250 OK id=1tSxyz-000abc-%dX", i)
		}
		return ""
	}
	e := m.start(t, hasty)
	for range 3 {
		deliverOne(t, e, modeO, "clear")
	}
	p := e.client.Peers.Get(miniAddr(e, 0))
	m.mu.Lock()
	n := 0
	for _, c := range m.cmds {
		n += strings.Count(strings.Join(c, "\n")+"\n", "EHLO")
	}
	m.mu.Unlock()
	if p.Alike || n > 2 {
		t.Errorf("alike %v, answers %v; %d EHLO for 3 messages", p.Alike, p.Answers, n)
	}
}

// RSET refused: the session is not kept.
func TestSessionWithoutResetIsNotKept(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{
		Rset: relaytest.Reply{Code: 502, Text: "5.5.1 no"}, Keywords: ways["pipelined-DATA"],
		Rcpts: map[string]relaytest.Reply{"bad@example.test": {Code: 450, Text: "4.2.0 later"}},
	})
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeT, "tls")
	e.Deliver(context.Background(), jobTo(t, modeT, "bad@example.test"))
	deliverOne(t, e, modeT, "tls")
	if idle := e.pool.Stats().Idle; idle != 0 {
		t.Errorf("%d idle: %q", idle, verbs(h))
	}
}

// the final answer begins with a line without a code, or its code is glued to its text.
func TestAnswerWithoutCode(t *testing.T) {
	for _, end := range []string{"thank you\r\n250 2.0.0 ok", "250ok", "250 ok\r\nthank you"} {
		for name, kw := range map[string][]string{"both": kwBoth, "pipe": kwPipe} {
			m := &mini{keywords: kw}
			m.on = func(c *miniConn, s, _ string) string {
				if s == "end" {
					m.mu.Lock()
					m.taken = append(m.taken, []string{"bob@example.test"})
					m.mu.Unlock()
					io.WriteString(c, end+"\r\n")
					return "x"
				}
				return ""
			}
			_ = name
			e := m.start(t, hasty)
			job := jobTo(t, modeO)
			for range 4 {
				r := deliverAndNote(e, &job)
				if settledAll(r) {
					break
				}
			}
			if n := m.times("bob@example.test"); n > 2 {
				t.Errorf("%s: %q: %d copies", name, end, n)
			}
		}
	}
}

// our own closing is no habit of the host.
func TestOwnClosingIsNoHabit(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	e := engine(t, w, routeTo(h))
	for range 2 {
		deliverOne(t, e, modeT, "tls")
		h.SetScript(relaytest.Script{})
		ctx, cancel := context.WithCancel(context.Background())
		deliverOne(t, e, modeT, "tls")
		time.AfterFunc(50*time.Millisecond, cancel)
		job := jobTo(t, modeT)
		job.Body = slowBody{ctx}
		e.Deliver(ctx, job)
		cancel()
	}
	if p := e.client.Peers.Get(h.Addr()); !p.Hangup.IsZero() || !p.HangsUp.IsZero() || !p.NoChunks.IsZero() {
		t.Errorf("%+v", p)
	}
}

type slowBody struct{ ctx context.Context }

func (b slowBody) NewReader() io.Reader { return &slowReader{b.ctx, 1 << 20} }
func (b slowBody) Size() int64          { return 1 << 20 }
func (b slowBody) Close() error         { return nil }

type slowReader struct {
	ctx  context.Context
	left int
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.left < 1<<19 {
		<-r.ctx.Done()
		time.Sleep(20 * time.Millisecond)
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), r.left)
	for i := range n {
		p[i] = 'x'
	}
	r.left -= n
	return n, nil
}

// a host that worded all alike and says 421 behind its last message.
func TestAlikeAnd421(t *testing.T) {
	m := &mini{keywords: kwBoth}
	m.on = func(c *miniConn, s, _ string) string {
		switch {
		case s == "ehlo" && c.msgs >= 3:
			return "421 4.7.0 too many messages on this connection"
		case s == "mail", s == "rcpt", s == "end":
			return "250 OK"
		}
		return ""
	}
	e := m.start(t, hasty)
	for range 5 {
		job := jobTo(t, modeO)
		for range 3 {
			if settledAll(deliverAndNote(e, &job)) {
				break
			}
		}
	}
	// The 421 may have been the answer to the content: nobody knows, once.
	if n := m.times("bob@example.test"); n > 6 {
		t.Errorf("%d copies of 5 messages", n)
	}
}
