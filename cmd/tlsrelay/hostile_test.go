package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/relay/relaytest"
)

// metric sums the samples whose name and labels begin so.
func (r *rig) metric(name string) float64 {
	r.t.Helper()
	return metricAt(r.t, r.app.admin.addr(), name)
}

// metricAt is metric at an operator's listener.
func metricAt(t testing.TB, admin, name string) float64 {
	t.Helper()
	res, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	sum := 0.0
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		key, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || !strings.HasPrefix(key, name) {
			continue
		}
		if rest := key[len(name):]; rest != "" && rest[0] != '{' && !strings.Contains(name, "{") {
			continue // a longer name
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// calm stops the relay and finds that it let go of every host.
func (r *rig) calm(hosts ...*relaytest.Host) {
	r.t.Helper()
	r.stop()
	for _, h := range hosts {
		ctx, cancel := context.WithTimeout(context.Background(), relaytest.Patience)
		if err := h.WaitFor(ctx, func() bool { return h.Open() == 0 }); err != nil {
			r.t.Errorf("%s still has %d connections open", h.Name(), h.Open())
		}
		cancel()
	}
}

func impatient(c *configs.Config) {
	c.Delivery.ConnectTimeout, c.Delivery.HandshakeTimeout, c.Delivery.CommandTimeout = 2*time.Second, 2*time.Second, 2*time.Second
}

// Whatever a receiver does to hold an attempt up, the attempt ends, the mail
// waits for a better day, and nobody else notices.
func TestHostileReceivers(t *testing.T) {
	const wide = 200 << 10
	drip := relaytest.Reply{Do: relaytest.Drip}
	endless := relaytest.Reply{Do: relaytest.Endless}
	plain := []string{"8BITMIME"} // neither CHUNKING nor PIPELINING
	scripts := map[string]relaytest.Script{
		"endless-banner":    {Greeting: endless},
		"endless-ehlo":      {EHLO: endless},
		"endless-starttls":  {StartTLS: endless},
		"endless-mail":      {Mail: endless},
		"endless-rcpt":      {Rcpt: endless},
		"endless-end":       {End: endless},
		"drip-banner":       {Greeting: drip},
		"drip-ehlo-in-tls":  {EHLOInTLS: drip},
		"drip-data":         {Keywords: plain, Data: drip},
		"wide-banner":       {Greeting: relaytest.Reply{Raw: "220 " + strings.Repeat("x", wide) + "\r\n"}},
		"wide-rcpt":         {Keywords: plain, Rcpt: relaytest.Reply{Raw: "250 " + strings.Repeat("x", wide) + "\r\n"}},
		"no-smtp":           {Greeting: relaytest.Reply{Raw: "HTTP/1.1 400 Bad Request\r\n\r\n"}},
		"changing-code":     {Keywords: plain, Rcpt: relaytest.Reply{Raw: "250-one\r\n550 two\r\n"}},
		"silent-banner":     {Greeting: relaytest.Reply{Do: relaytest.Silence}},
		"silent-end":        {End: relaytest.Reply{Do: relaytest.Silence}},
		"close-at-end":      {End: relaytest.Reply{Do: relaytest.Close}},
		"reset-at-data":     {Keywords: plain, Data: relaytest.Reply{Do: relaytest.Reset}},
		"stops-reading":     {BodyLimit: 1 << 20, BodyOver: relaytest.Reply{Do: relaytest.Stall}},
		"accepts-too-early": {BodyLimit: 1 << 20, BodyOver: relaytest.Reply{Code: 250, Hangup: true}},
	}
	r := newRig(t, impatient)
	receiver, _ := r.webhook()
	r.set(`{"require_tls":true}`) // else trouble with TLS ends in clear
	healthy := r.world.Host(t, "mx.healthy.test")
	hosts := map[string]*relaytest.Host{}
	for name, script := range scripts {
		hosts[name] = r.world.Host(t, "mx."+name+".test", script)
		if script.BodyLimit > 0 {
			r.submitLarge("a@"+name+".test", 16<<20) // more than sockets hold
		} else {
			r.submit("app@sender.test", "a@"+name+".test")
		}
	}
	r.submit("app@sender.test", "a@healthy.test")
	healthy.Await(t, 1)
	for name, host := range hosts {
		e := r.event(receiver, "a@"+name+".test", "deferred")
		if host.Accepted() != 0 {
			t.Errorf("%s: %d messages were accepted; event %v", name, host.Accepted(), e)
		}
		if n := host.Connections(); n > 4 {
			t.Errorf("%s: one attempt made %d connections", name, n)
		}
		if host.LeakedInClear() {
			t.Errorf("%s: in clear: %q", name, host.ClearCommands())
		}
	}
	// After the final dot nobody knows whether the host took the message, so
	// it is not offered again at once.
	for _, name := range []string{"close-at-end", "silent-end", "endless-end"} {
		if n := dataCommands(hosts[name]); n != 1 {
			t.Errorf("%s: the message was sent %d times at once", name, n)
		}
	}
	all, err := receiver.Events()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e["event"] == "bounce" || e["event"] == "delivered" && e["email"] != "a@healthy.test" {
			t.Errorf("a hostile receiver made a final event: %v", e)
		}
	}
	eventually(t, "all attempts have ended", func() bool { return r.metric("tlsrelay_queue_attempts_running") == 0 })
	if open, idle := r.metric("tlsrelay_connections_open"), r.metric("tlsrelay_connections_idle"); open != idle {
		t.Errorf("%v connections are open, %v of them idle, and nothing is tried", open, idle)
	}
	if n := r.metric(`tlsrelay_deliveries_total{outcome="temporary"`); int(n) != len(scripts) {
		t.Errorf("%v temporary outcomes are counted, of %d", n, len(scripts))
	}
	if n := r.metric(`tlsrelay_queue_attempts_total{feedback="trouble"}`); n == 0 {
		t.Error("no trouble is counted")
	}
	hosts["stops-reading"].Close() // it does not read, so it cannot see us go
	r.calm(append(values(hosts), healthy)...)
}

func values(m map[string]*relaytest.Host) (all []*relaytest.Host) {
	for _, h := range m {
		all = append(all, h)
	}
	return all
}

func dataCommands(h *relaytest.Host) (n int) {
	for _, s := range h.Sessions() {
		for _, c := range s.Commands {
			if c.Line == "DATA" || strings.HasPrefix(c.Line, "BDAT") && strings.HasSuffix(c.Line, "LAST") {
				n++
			}
		}
	}
	return n
}

// submitLarge hands in a message of so many octets.
func (r *rig) submitLarge(to string, size int) {
	r.t.Helper()
	if err := r.submitText(to, io.MultiReader(
		strings.NewReader("Subject: large\r\n\r\n"),
		strings.NewReader(strings.Repeat(strings.Repeat("x", 76)+"\r\n", size/78)))); err != nil {
		r.t.Fatalf("submitting to %s: %v", to, err)
	}
}

// Two hundred tarpits at once: mail to everybody else goes out while they all
// still hang. Where there are fewer connections than tarpits, that holds for
// hosts that have proven themselves before.
func TestTarpits(t *testing.T) {
	for _, c := range []struct {
		name        string
		connections int
		proven      bool
	}{
		{"hosts never heard of", 1000, false},
		{"proven hosts, few connections", 100, true},
	} {
		t.Run(c.name, func(t *testing.T) { tarpits(t, c.connections, c.proven) })
	}
}

func tarpits(t *testing.T, connections int, proven bool) {
	const pits, each = 200, 10
	r := newRig(t, func(c *configs.Config) {
		c.Delivery.MaxConnections = connections
		c.Delivery.ConnectTimeout, c.Delivery.CommandTimeout = 10*time.Minute, 10*time.Minute
	})
	var tar, good []*relaytest.Host
	for i := range 5 {
		good = append(good, r.world.Host(t, fmt.Sprintf("mx.good%d.test", i)))
	}
	prior := 0
	if proven {
		prior = 1
		for i, h := range good {
			r.submit("app@sender.test", fmt.Sprintf("a@good%d.test", i))
			h.Await(t, prior)
		}
	}
	for i := range pits {
		name := fmt.Sprintf("pit%d.test", i)
		tar = append(tar, r.world.Host(t, "mx."+name, relaytest.Script{Greeting: relaytest.Reply{Do: relaytest.Drip, Pace: 10 * time.Minute}}))
		r.submit("app@sender.test", "a@"+name)
	}
	hanging := func() (n int) {
		for _, h := range tar {
			n += h.Open()
		}
		return n
	}
	want := min(pits, connections*8/10)
	eventually(t, "tarpits hold connections", func() bool { return hanging() >= want })
	for i := range good {
		for range each {
			r.submit("app@sender.test", fmt.Sprintf("a@good%d.test", i))
		}
	}
	for _, h := range good {
		h.Await(t, prior+each)
	}
	if n := hanging(); n < want {
		t.Errorf("only %d tarpits still hang: the test proves nothing", n)
	}
	running, open := r.metric("tlsrelay_queue_attempts_running"), r.metric("tlsrelay_connections_open")
	if int(running) < want || int(running) > connections || int(open) > connections {
		t.Errorf("%v attempts and %v connections, of %d at most", running, open, connections)
	}
	// Hosts that go away end what hangs; else the drain would wait for it.
	for _, h := range tar {
		h.Close()
	}
	r.calm(append(tar, good...)...)
}

// Thousands of trusted clients that say nothing keep nobody else out, up to the
// bound that the operator set; beyond it the answer is 421.
func TestIdleSubmitters(t *testing.T) {
	const places = 2000
	const idle = places - places/20 - 1 // the last twentieth is for those who want to log in
	r := newRig(t, trusting, func(c *configs.Config) { c.Submission.MaxConnections = places })
	host := r.world.Host(t, "mx.good.test")
	addr := r.app.submission.Addrs()[0].String()
	var silent []net.Conn
	for range idle {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	open := func() float64 { return r.metric("tlsrelay_submission_connections") }
	eventually(t, "all are connected", func() bool { return open() == idle })
	r.submit("app@sender.test", "a@good.test")
	host.Await(t, 1)

	eventually(t, "the submitter has left", func() bool { return open() == idle })
	last := talk(t, addr)
	over, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	if line, _ := bufio.NewReader(over).ReadString('\n'); !strings.HasPrefix(line, "421 4.3.2 ") {
		t.Errorf("one too many was told %q", line)
	}
	if n := r.metric(`tlsrelay_submission_rejected_total{cause="max_connections"}`); n != 1 {
		t.Errorf("%v rejections are counted", n)
	}
	last.say("QUIT", "221")
	for _, c := range silent {
		c.Close()
	}
	eventually(t, "all have left", func() bool { return open() == 0 })
	r.calm(host)
}

// Who takes too long is told 421.
func TestIdleTimeout(t *testing.T) {
	r := newRig(t, trusting, func(c *configs.Config) { c.Submission.IdleTimeout = 2 * time.Second })
	addr := r.app.submission.Addrs()[0].String()
	silent, midway := talk(t, addr), talk(t, addr)
	midway.say("EHLO app.test", "250")
	midway.say("MAIL FROM:<app@sender.test>", "250")
	midway.say("RCPT TO:<a@good.test>", "250")
	midway.say("DATA", "354")
	fmt.Fprint(midway, "Subject: never ends\r\n")
	for _, k := range []*talker{silent, midway} {
		k.hear("421 4.4.2")
		k.over()
	}
	eventually(t, "both have left", func() bool { return r.metric("tlsrelay_submission_connections") == 0 })
	eventually(t, "one aborted message is counted", func() bool {
		return r.metric(`tlsrelay_submission_messages_total{outcome="aborted"}`) == 1
	})
	r.calm()
}

// Garbage gets an error or the door, and the next client does not notice.
func TestGarbageSubmitters(t *testing.T) {
	r := newRig(t, trusting)
	host := r.world.Host(t, "mx.good.test")
	noise := make([]byte, 1<<20)
	rand.Read(noise)
	var senders sync.WaitGroup
	for name, input := range map[string]string{
		"noise":          string(noise),
		"one long line":  strings.Repeat("x", 1<<20),
		"many bad lines": strings.Repeat("BOO\r\n", 100_000),
		"HTTP":           "GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
		"TLS":            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(noise[:500]),
		"NULs":           strings.Repeat("\x00", 100_000) + "\r\n",
		"endless header": "EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@good.test>\r\nDATA\r\n" + strings.Repeat("X: y\r\n", 1<<20),
	} {
		senders.Go(func() {
			c, err := net.Dial("tcp", r.app.submission.Addrs()[0].String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(30 * time.Second))
			drained := make(chan int64)
			go func() { n, _ := io.Copy(io.Discard, c); drained <- n }()
			io.WriteString(c, input) // fails where the relay hangs up first
			c.(*net.TCPConn).CloseWrite()
			if n := <-drained; n > int64(len(input))*20+1000 {
				t.Errorf("%s: %d octets brought %d in answer", name, len(input), n)
			}
		})
	}
	senders.Wait()
	r.submit("app@sender.test", "a@good.test")
	if m := host.Await(t, 1); len(m) != 1 || m[0].To[0].Address != "a@good.test" {
		t.Errorf("came: %v", m)
	}
	eventually(t, "all have left", func() bool { return r.metric("tlsrelay_submission_connections") == 0 })
	if n := r.metric(`tlsrelay_submission_messages_total{outcome="accepted"}`); n != 1 {
		t.Errorf("%v messages were accepted", n)
	}
	r.calm(host)
}

// A flood of bad logins is slowed, and whoever else is at its address logs in
// as ever.
func TestLoginFlood(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Submission.AllowPlaintextAuth, c.Submission.AuthFailuresPerMinute = true, 5
	})
	addr := r.app.submission.Addrs()[0].String()
	auth := func(secret string) string {
		return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00apikey\x00"+secret))
	}
	flood := func() *talker {
		k := talk(t, addr)
		k.say("EHLO flood.test", "250")
		k.say(auth("SG.wrong.wrong"), "535 5.7.8")
		return k
	}
	for range 5 {
		k := flood()
		k.say(auth("SG.wrong.wrong"), "535 5.7.8")
		k.say(auth(r.key), "235 2.7.0")
		k.say("QUIT", "221")
	}
	begun := time.Now()
	slowed := flood()
	slowed.hear("421 4.7.0")
	slowed.over()
	if took := time.Since(begun); took < time.Second {
		t.Errorf("a failure too many was answered after %v", took)
	}
	if n := r.metric("tlsrelay_submission_auth_failures_total"); n != 11 {
		t.Errorf("%v failures are counted", n)
	}
	if n := r.metric(`tlsrelay_submission_rejected_total{cause="auth_failures"}`); n != 1 {
		t.Errorf("%v rejections are counted", n)
	}
	other := talk(t, addr)
	other.say("EHLO app.test", "250")
	other.say(auth(r.key), "235 2.7.0")
	other.say("QUIT", "221")
	r.calm()
}
