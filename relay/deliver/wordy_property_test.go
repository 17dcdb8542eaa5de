package deliver

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsrelay/relay"
	"tlsrelay/relay/deliver/pool"
)

// whatever happens, the pool's books are right at the end.
func TestBooksOfThePool(t *testing.T) {
	var addrs []netip.AddrPort
	var open [3]atomic.Int32
	for i := range 3 {
		m := &mini{keywords: [][]string{kwBoth, kwPipe, kwNone}[i]}
		m.on = func(c *miniConn, s, arg string) string {
			switch n := rand.IntN(40); {
			case s == "mail" && n < 3:
				return "452 4.3.1 no"
			case s == "rcpt" && n < 2:
				return "421 4.3.1 no"
			case s == "rcpt" && n < 6:
				return "550 5.1.1 no"
			case s == "end" && n < 2:
				return "close"
			case s == "end" && n < 4:
				return "554 5.7.1 no"
			case n < 1:
				return "close"
			case n < 2:
				return "250 2.0.0 a\r\n250 2.0.0 b"
			case s == "bdat" && n < 6:
				return "502 5.5.1 no"
			case s == "greeting" && n < 5:
				return "421 4.7.0 busy"
			case n == 6:
				time.Sleep(10 * time.Millisecond)
			}
			return ""
		}
		addrs = append(addrs, rawHost(t, func(c net.Conn) {
			if open[i].Add(1) > 4 {
				io.WriteString(c, "421 4.7.0 too many\r\n")
			} else {
				m.serve(c)
			}
			open[i].Add(-1)
		}))
	}
	e := miniEngine(t, []func(*Options){hasty, func(o *Options) { o.MaxPerHost, o.MaxConnections = 6, 8 }}, addrs...)
	route := routeTo()
	for i := range addrs {
		route.Hosts = append(route.Hosts, hostAt(fmt.Sprintf("mx%d.other.test", i), addrs[2-i]))
	}
	e2 := &Engine{o: e.o, router: router{route: route}, log: e.log, pool: e.pool, metrics: e.metrics, client: e.client, nameRefusers: e.nameRefusers}
	var wg sync.WaitGroup
	for range 24 {
		wg.Go(func() {
			for range 10 {
				ctx, cancel := context.WithCancel(context.Background())
				if rand.IntN(4) == 0 {
					time.AfterFunc(time.Duration(rand.IntN(30))*time.Millisecond, cancel)
				}
				target := e
				if rand.IntN(2) == 0 {
					target = e2
				}
				target.Deliver(ctx, jobTo(t, modeO, "a@example.test", "b@example.test", "c@example.test"))
				cancel()
			}
		})
	}
	wg.Wait()
	e.pool.CloseIdle()
	if s := e.pool.Stats(); s != (pool.Stats{}) {
		t.Errorf("%+v", s)
	}
	for _, a := range addrs {
		if c := e.pool.At(a); c.Open != 0 || c.Live != 0 || c.Idle != 0 {
			t.Errorf("%v %+v", a, c)
		}
	}
}

// TestWordyHostsProperty: whatever a host says beside what it was asked, a message
// that it refused is not told as delivered, nobody is bounced for another, and there
// are no more than two copies.
func TestWordyHostsProperty(t *testing.T) {
	kinds := map[string]int{}
	note := func(kind, detail string) {
		if kinds[kind]++; kinds[kind] <= 3 {
			t.Errorf("%s: %s", kind, detail)
		}
	}
	for seed := range uint64(120) {
		func() {
			r := rand.New(rand.NewPCG(seed, 1))
			kw := [][]string{kwBoth, kwPipe, kwChunk, kwNone}[r.IntN(4)]
			steps := []string{"mail", "rcpt", "bdat", "end", "ehlo"}
			raws := []string{"250 2.1.5 Ok\r\n", "250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n", "250 2.0.0 thanks a lot\r\n"}
			step, raw := steps[r.IntN(len(steps))], raws[r.IntN(len(raws))]
			delay := time.Duration(r.IntN(2)*8) * time.Millisecond
			end := []string{"", "", "554 5.7.1 spam", "451 4.7.1 later", "421 4.3.0 bye", "close"}[r.IntN(6)]
			badRcpt := r.IntN(2) == 0
			known := r.IntN(2) == 0
			alike := r.IntN(4) == 0
			var on atomic.Bool
			m := &mini{keywords: kw, delay: delay}
			m.also = func(c *miniConn, s, arg string) string {
				if s == step && on.Load() {
					return raw
				}
				return ""
			}
			m.on = func(c *miniConn, s, arg string) string {
				switch {
				case s == "rcpt" && badRcpt && arg == "bad@example.test":
					return "550 5.1.1 who"
				case s == "end" && on.Load() && end != "":
					return end
				case alike && (s == "mail" || s == "rcpt" || s == "end" || s == "bdat"):
					return "250 OK"
				}
				return ""
			}
			name := fmt.Sprintf("seed %d kw %v step %s raw %q delay %v end %q bad %v known %v alike %v", seed, kw, step, raw, delay, end, badRcpt, known, alike)
			e := m.start(t, hasty)
			if known {
				deliverOne(t, e, modeO, "clear")
				forgetSessions(e)
			}
			on.Store(true)
			job := jobTo(t, modeO, "bad@example.test", "good@example.test")
			done := [2]bool{}
			for range 4 {
				open := []int{}
				for i := range job.Delivery.Recipients {
					if !done[i] {
						open = append(open, i)
					}
				}
				if len(open) == 0 {
					break
				}
				j := job
				j.Delivery.Recipients = nil
				for _, i := range open {
					j.Delivery.Recipients = append(j.Delivery.Recipients, job.Delivery.Recipients[i])
				}
				res := e.Deliver(context.Background(), j)
				job.Delivery.Last = &res.Attempt
				for n, i := range open {
					f := res.Outcomes[n].Failure
					who := []string{"bad@example.test", "good@example.test"}[i]
					refused := i == 0 && badRcpt || strings.HasPrefix(end, "554")
					switch {
					case f == nil:
						done[i] = true
						if m.times(who) == 0 {
							note("refused, told as delivered", name+": "+who)
						}
					case f.Class == relay.Permanent:
						done[i] = true
						if !refused {
							note("bounced for another's refusal", name+": "+who+": "+f.Reply.String())
						}
						if m.times(who) > 0 {
							note("taken, told as bounced", name+": "+who+": "+f.Reply.String())
						}
					}
				}
			}
			for _, who := range []string{"bad@example.test", "good@example.test"} {
				if n := m.times(who); n > 2 {
					note("copies", fmt.Sprintf("%s: %d of %s", name, n, who))
				}
			}
		}()
	}
	for k, n := range kinds {
		t.Logf("%s: %d of 120", k, n)
	}
}
