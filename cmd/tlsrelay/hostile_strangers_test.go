package main

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/relay"
	"tlsrelay/relay/api"
	"tlsrelay/relay/relaytest"
)

// strangers are connections that say nothing.
type strangers struct {
	mu   sync.Mutex
	open []net.Conn
	told atomic.Int64 // that were ended, most with 421
}

// connect opens a connection from an address of this machine and keeps it until the
// relay ends it.
func (s *strangers) connect(from net.IP, addr string) error {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.open = append(s.open, c)
	s.mu.Unlock()
	go func() {
		io.Copy(io.Discard, c)
		s.told.Add(1)
		c.Close()
	}()
	return nil
}

func (s *strangers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.open {
		c.Close()
	}
}

// pace submits messages one after another, each with a login of its own, and gives
// how long the slowest and the median took.
func (r *rig) pace(n int) (median, slowest time.Duration) {
	r.t.Helper()
	var took []time.Duration
	for range n {
		begun := time.Now()
		r.submit("app@sender.test", "a@good.test")
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return took[n/2], took[n-1]
}

// Thousands of connections that show no key, from one address or from as many, take
// the places of strangers and no others: whoever has a key logs in beside them and
// has its 250 as fast as ever, on a new connection and on an old one. They are told
// why they go, and the operator sees them.
func TestSilentStrangers(t *testing.T) {
	const messages = 30
	// Half as many places as by default: there are open files for them anywhere.
	r := newRig(t, func(c *configs.Config) { c.Submission.MaxConnections = 5000 })
	host := r.world.Host(t, "mx.good.test")
	addr := r.app.submission.Addrs()[0].String()
	quiet, quietest := r.pace(messages)
	wait := func(what string, least, most float64, metric string) {
		t.Helper()
		eventually(t, what, func() bool { n := r.metric(metric); return n >= least && n <= most })
	}
	gauge := "tlsrelay_submission_strangers"

	var one strangers
	defer one.close()
	for range 2500 {
		if err := one.connect(net.IPv4(127, 0, 0, 9), addr); err != nil {
			t.Fatal(err)
		}
	}
	wait("the address has its share", 200, 200, gauge)
	wait("the others are turned away", 2300, 2500, `tlsrelay_submission_rejected_total{cause="max_strangers_per_ip"}`)
	median, slowest := r.pace(messages)
	t.Logf("quiet: median %v, slowest %v; beside 2500 connections of one address: %v, %v", quiet, quietest, median, slowest)
	if slowest > max(10*time.Second, 2*quietest) {
		t.Errorf("beside one address the slowest message took %v", slowest)
	}

	// Now from everywhere, without end: thousands a second.
	var many strangers
	defer many.close()
	stop := make(chan struct{})
	var attackers sync.WaitGroup
	var next atomic.Uint32
	for range 4 {
		attackers.Go(func() {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for range tick.C {
				n := next.Add(1)
				if n > 12_000 {
					return
				}
				select {
				case <-stop:
					return
				default:
				}
				if err := many.connect(net.IPv4(127, 1+byte(n>>16), byte(n>>8), byte(n)), addr); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wait("places are short", 1, 1e9, `tlsrelay_submission_rejected_total{cause="gave_way"}`)
	wait("strangers have a fifth of the places", 900, 1000, gauge)
	median, slowest = r.pace(messages)
	close(stop)
	attackers.Wait()
	t.Logf("beside %d connections of as many addresses: median %v, slowest %v", next.Load(), median, slowest)
	if slowest > max(10*time.Second, 3*quietest) { // they share two processors with it, and with the race detector
		t.Errorf("beside many addresses the slowest message took %v", slowest)
	}
	if n := r.metric(`tlsrelay_submission_messages_total{outcome="accepted"}`); n != 3*messages {
		t.Errorf("%v messages were accepted", n)
	}
	host.Await(t, 3*messages)
	for of, want := range map[string]float64{"connections": 5000, "strangers": 1000, "strangers_per_ip": 200} {
		if n := r.metric("tlsrelay_submission_" + of + "_limit"); n != want {
			t.Errorf("the limit of %s: %v", of, n)
		}
	}
	one.close()
	many.close()
	wait("all have left", 0, 0, "tlsrelay_submission_connections")
}

// Who says nothing has the time to log in, and no more, also where nobody else
// wants the place.
func TestLoginTimeout(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Submission.LoginTimeout = 2 * time.Second })
	r.world.Host(t, "mx.good.test")
	k := talk(t, r.app.submission.Addrs()[0].String())
	begun := time.Now()
	k.say("EHLO app.test", "250")
	k.hear("421 4.4.2 " + fmt.Sprint(r.config.Hostname) + " No login in time")
	k.over()
	if took := time.Since(begun); took < time.Second {
		t.Errorf("ended after %v", took)
	}
	if n := r.metric(`tlsrelay_submission_rejected_total{cause="login_timeout"}`); n != 1 {
		t.Errorf("%v are counted", n)
	}
	r.submit("app@sender.test", "a@good.test")
}

// A megabyte of header that never ends, on each of an account's connections: the
// account has half of the memory for content and no more, whatever it opens; others
// have their messages taken as fast as ever; and who is refused is told so at the end.
func TestUnfinishedHeaders(t *testing.T) {
	const connections, size = 160, 1 << 20
	r := newRig(t, func(c *configs.Config) { c.Submission.AllowPlaintextAuth = true })
	host := r.world.Host(t, "mx.good.test")
	k := r.newSubuser("hostile")
	quiet, quietest := r.pace(20)
	before := heap()
	header := strings.Repeat("X-Padding: "+strings.Repeat("x", 900)+"\r\n", size/913)
	open := make([]*talker, connections)
	var senders sync.WaitGroup
	for i := range open {
		open[i] = talk(t, r.app.submission.Addrs()[0].String())
		for _, line := range [][2]string{
			{"EHLO app.test", "250"}, {login(k.Secret), "235"}, {"MAIL FROM:<app@sender.test>", "250"},
			{"RCPT TO:<a@good.test>", "250"}, {"DATA", "354"},
		} {
			open[i].say(line[0], line[1])
		}
	}
	for _, c := range open { // all are at DATA: MAIL is refused once the account is at its bound
		senders.Go(func() { io.WriteString(c, header) })
	}
	senders.Wait()
	bounds := `tlsrelay_submission_account_bounds_total{bound="content_memory"}`
	eventually(t, "the account is at its bound", func() bool { return r.metric(bounds) > 0 })
	median, slowest := r.pace(20)
	grown, held := heap()-before, r.metric("tlsrelay_submission_content_bytes")
	t.Logf("%d unfinished headers: %d MiB of heap, %.0f MiB of them counted; messages of others take %v, the slowest %v (quiet: %v, %v)",
		connections, grown>>20, held/(1<<20), median, slowest, quiet, quietest)
	if limit := r.metric("tlsrelay_submission_content_bytes_limit"); held > limit/2 || limit != 256<<20 {
		t.Errorf("%v octets are held, of %v", held, limit)
	}
	if grown > 160<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
	if slowest > max(10*time.Second, 2*quietest) {
		t.Errorf("the slowest message of others took %v", slowest)
	}
	refused := 0
	for _, c := range open {
		if c.say("\r\nbody\r\n.", "")[0] == '4' {
			refused++
		}
	}
	if n := r.metric(bounds); refused == 0 || refused == connections || int(n) != refused {
		t.Errorf("%d were refused, %v are counted", refused, n)
	}
	eventually(t, "nothing is held", func() bool { return r.metric("tlsrelay_submission_content_bytes") == 0 })
	host.Await(t, 40)
}

// heap is how much memory is in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// login is the command by which a client shows its key.
func login(secret string) string {
	return "AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00apikey\x00"+secret))
}

// A key that has leaked does as much harm as the account's bound allows: the bound
// is set by command, acts at once, and is kept over a restart. Others do not notice.
func TestLeakedKeyIsBounded(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Submission.AllowPlaintextAuth = true })
	host := r.world.Host(t, "mx.good.test")
	k := r.newSubuser("shop")
	show := func(want int) {
		t.Helper()
		var all []api.Account
		r.decode(r.must("account", "list", "--json"), &all)
		i := slices.IndexFunc(all, func(a api.Account) bool { return a.Username == "shop" })
		if i < 0 || all[i].MaxRecipientsPerHour != want {
			t.Errorf("account list: %+v, want %d", all, want)
		}
	}
	send := func(rcpts ...string) string {
		t.Helper()
		if _, err := r.trySubmit(k.Secret, "app@sender.test", rcpts...); err != nil {
			return err.Error()
		}
		return "250"
	}
	show(0)
	r.must("account", "set", "shop", "--max-recipients-per-hour", "4")
	r.fails("nothing to set", "account", "set", "shop")
	r.fails("must not be negative", "account", "set", "shop", "--max-recipients-per-hour", "-1")
	show(4)
	for _, step := range []struct {
		rcpts []string
		want  string
	}{
		{[]string{"a@good.test", "b@good.test", "c@good.test"}, "250"},
		{[]string{"d@good.test", "e@good.test"}, "SMTP error 452"},
		{[]string{"d@good.test"}, "250"},
		{[]string{"e@good.test"}, "SMTP error 452"},
	} {
		if got := send(step.rcpts...); !strings.Contains(got, step.want) {
			t.Errorf("%v: %s", step.rcpts, got)
		}
	}
	r.submit("app@sender.test", "parent@good.test")
	if n := r.metric(`tlsrelay_submission_account_bounds_total{bound="recipients_per_hour"}`); n != 2 {
		t.Errorf("%v refusals are counted", n)
	}
	r.stop()
	r.start()
	show(4)
	if got := send("1@good.test", "2@good.test", "3@good.test", "4@good.test", "5@good.test"); !strings.Contains(got, "SMTP error 452") {
		t.Errorf("after a restart: %s", got)
	}
	r.must("account", "set", "shop", "--max-recipients-per-hour", "0")
	if got := send("1@good.test", "2@good.test", "3@good.test", "4@good.test", "5@good.test"); got != "250" {
		t.Errorf("without a bound: %s", got)
	}
	host.Await(t, 4)
}

// What waits of a disabled account stays where it is, and an attempt that waits for
// a host ends before the content. Enabled again, by command or by the API, all of it
// goes on at once. Others' mail goes on meanwhile.
func TestDisableHoldsTheQueue(t *testing.T) {
	r := newRig(t)
	good := r.world.Host(t, "mx.good.test")
	k := r.newSubuser("shop")
	const running = "tlsrelay_queue_attempts_running"
	for name, enable := range map[string]func(){
		"command": func() { r.must("account", "enable", "shop") },
		"api": func() {
			if code, body := r.call("PATCH", "/v3/subusers/shop", `{"disabled":false}`); code != 204 {
				t.Errorf("%d %s", code, body)
			}
		},
	} {
		shy := r.world.Host(t, "mx.shy-"+name+".test", relaytest.Script{Rcpt: relaytest.Reply{Code: 451, Text: "4.3.0 Later", Times: 1}})
		slow := r.world.Host(t, "mx.slow-"+name+".test", relaytest.Script{Mail: relaytest.Reply{Delay: time.Minute, Times: 1}})
		waiting := func() (all []relay.Queued) {
			t.Helper()
			r.decode(r.must("queue", "list", "shy-"+name+".test", "--json"), &all)
			return all
		}
		for _, to := range []string{"a@shy-" + name + ".test", "a@slow-" + name + ".test"} {
			if _, err := r.trySubmit(k.Secret, "app@sender.test", to); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, name+": the attempts are made", func() bool {
			list := waiting()
			return len(list) == 1 && list[0].Delivery.Last != nil && slow.Open() > 0 && r.metric(running) == 1
		})
		r.must("account", "disable", "shop")
		begun := time.Now()
		eventually(t, "the attempt under way ends", func() bool { return r.metric(running) == 0 })
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: the attempt ended after %v", name, took)
		}
		r.must("queue", "retry", "--account", "shop") // does not help
		accepted := good.Accepted()
		r.submit("app@sender.test", "other@good.test")
		good.Await(t, accepted+1)
		eventually(t, name+": it waits, and no attempt is counted", func() bool {
			list := waiting()
			return len(list) == 1 && list[0].Delivery.Attempts == 1 && r.metric(running) == 0
		})
		if n := shy.Accepted() + slow.Accepted(); n != 0 {
			t.Errorf("%s: %d messages left", name, n)
		}
		begun = time.Now()
		enable()
		shy.Await(t, 1)
		slow.Await(t, 1)
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("%s: the mail went on after %v", name, took)
		}
		slow.Close() // it still thinks about the first MAIL
	}
}

// Behind a balancer the relay knows its clients by the PROXY header: one of them
// takes its own share of the places and nobody else's, and the message says whose
// it is.
func TestBehindABalancer(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Submission.ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
		c.Submission.AllowPlaintextAuth, c.Submission.MaxStrangersPerIP = true, 50
	})
	host := r.world.Host(t, "mx.good.test")
	comes := func(client string) *talker {
		t.Helper()
		c, err := net.Dial("tcp", r.app.submission.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		fmt.Fprintf(c, "PROXY TCP4 %s 192.0.2.25 4321 25\r\n", client)
		return &talker{t, c, bufio.NewReader(c)}
	}
	for range 50 {
		comes("198.51.100.7").hear("220")
	}
	for range 50 {
		comes("198.51.100.7").hear("421 4.7.0")
	}
	good := comes("198.51.100.8")
	good.hear("220")
	for _, line := range [][2]string{
		{"EHLO app.test", "250"}, {login(r.key), "235"}, {"MAIL FROM:<app@sender.test>", "250"},
		{"RCPT TO:<a@good.test>", "250"}, {"DATA", "354"}, {"Subject: x\r\n\r\nx\r\n.", "250"}, {"QUIT", "221"},
	} {
		good.say(line[0], line[1])
	}
	if m := host.Await(t, 1); !strings.Contains(string(m[0].Body), "([198.51.100.8])") {
		t.Errorf("%s", m[0].Body)
	}
	// Who does not come by the balancer is believed nothing.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := d.Dial("tcp", r.app.submission.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other := &talker{t, c, bufio.NewReader(c)}
	other.hear("220")
	other.say("PROXY TCP4 198.51.100.8 192.0.2.25 4321 25", "501")
	other.say("QUIT", "221")
}
