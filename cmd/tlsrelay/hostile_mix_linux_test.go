package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay/api"
	"tlsrelay/relay/relaytest"
)

var mix = flag.Duration("mix", 0, "how long TestHostileMix attacks; 0: not at all")

// noise is what two processors and a disk that the attackers use as well do to a single
// figure.
const noise = 2 * time.Second

// Everybody attacks at once: a tenant that floods, fills and checks, its consumers
// that refuse, two hundred tarpits, two thousand silent submitters and as many HTTP
// connections without a key, with the disk near its limit. The 250s, deliveries,
// policy changes and events of others keep their pace, and nothing is lost.
func TestHostileMix(t *testing.T) {
	if *mix == 0 {
		t.Skip("make hostile")
	}
	s := newSiege(t)
	quiet := s.day("quiet", max(*mix/2, 3*time.Second))
	s.attack()
	hostile := s.day("hostile", *mix)
	t.Logf("under attack: %s", s.state())
	s.relent()
	t.Logf("%-14s %12s %12s   %12s %12s", "", "quiet p50", "p99", "attacked p50", "p99")
	for _, what := range slices.Sorted(maps.Keys(quiet)) {
		q, h := quiet[what], hostile[what]
		t.Logf("%-14s %12v %12v   %12v %12v  of %d", what, q.at(0.5), q.at(0.99), h.at(0.5), h.at(0.99), len(h))
		if h.at(0.99) > max(2*q.at(0.99), noise) {
			t.Errorf("%s: p99 is %v under attack, and %v when it is quiet", what, h.at(0.99), q.at(0.99))
		}
	}
	s.judge()
}

// siege is a relay in a process of its own, two tenants whose pace is measured, and
// one that attacks.
type siege struct {
	t          *testing.T
	world      *relaytest.World
	file, env  string
	p          *process
	key        string // of the parent
	good       party  // its hosts have TLS
	strict     party  // demands TLS of a host that has none
	evil       party
	goodHosts  []*relaytest.Host
	clear      *relaytest.Host // has no TLS
	pits       []*relaytest.Host
	strangers  [2]atomic.Int64 // connections that are open: to submission, to the API
	refused    atomic.Int64    // messages of evil
	stop       context.CancelFunc
	attackers  sync.WaitGroup
	unfinished atomic.Int64
	cutOff     atomic.Int64 // policy changes that had to be asked for again

	mu    sync.Mutex
	taken map[string]int // evil's messages that have their 250, and their recipients
}

// party is a subuser with its key, and its consumer of events.
type party struct {
	key      string
	receiver *relaytest.Receiver
}

const (
	goodDomains, pits = 10, 200
	besiegers         = 2000 // at submission, and as many at the API
)

func newSiege(t *testing.T) *siege {
	w := relaytest.Start(t)
	s := &siege{t: t, world: w, key: account.NewSecret(), taken: map[string]int{}}
	config := worldConfig(t, w)
	config.Log.Level = "info"                   // which says when it is ready
	config.Submission.AllowPlaintextAuth = true // evil does not trouble itself with TLS
	config.Delivery.CommandTimeout = 5 * time.Minute
	config.Webhooks.RetryAfter, config.Webhooks.RetryMax = 2*time.Second, 10*time.Minute
	if os.Getuid() == 0 { // else its disk is as large as the machine's
		config.DataDir, config.MinFreeDisk = filepath.Join(smallDisk(t, "ext4", 640<<20), "data"), 128<<20
	}
	s.file, s.env = configFile(t, config), "TLSRELAY_BOOTSTRAP_KEY="+s.key
	s.p = startProcess(t, s.file, s.env).up()
	for i := range goodDomains {
		s.goodHosts = append(s.goodHosts, w.Host(t, fmt.Sprintf("mx.good%d.test", i)))
	}
	s.clear = w.Host(t, "mx.clear.test", relaytest.Script{NoTLS: true})
	for i := range pits {
		script := relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Silence}, Discard: true}
		if i%2 == 0 {
			script = relaytest.Script{Greeting: relaytest.Reply{Do: relaytest.Drip, Pace: time.Minute}, Discard: true}
		}
		s.pits = append(s.pits, w.Host(t, fmt.Sprintf("mx.pit%d.test", i), script))
	}
	s.good, s.strict, s.evil = s.party("good"), s.party("strict"), s.party("evil")
	s.hook(s.good.key, s.good.receiver.URL())
	s.hook(s.strict.key, s.strict.receiver.URL())
	s.ask(s.strict.key, "PATCH", "/v3/user/settings/enforced_tls", `{"require_tls":true}`, 200)
	return s
}

func (s *siege) party(name string) party {
	s.t.Helper()
	url := "http://" + s.p.admin
	if out, err := command(url, "account", "create", name); err != nil {
		s.t.Fatalf("%v %s", err, out)
	}
	out, err := command(url, "key", "create", "app", "--account", name, "--json")
	var k api.Key
	if err != nil || json.Unmarshal([]byte(out), &k) != nil {
		s.t.Fatalf("%v %s", err, out)
	}
	return party{k.Secret, relaytest.StartReceiver(s.t)}
}

func (s *siege) hook(key, url string) {
	s.t.Helper()
	body := fmt.Sprintf(`{"url":%q,"enabled":true,"processed":true,"delivered":true,"bounce":true,"deferred":true}`, url)
	s.ask(key, "POST", "/v3/user/webhooks/event/settings", body, 201)
}

// ask makes a request of the API that must have this answer, on a connection of
// its own.
func (s *siege) ask(key, method, path, body string, want int) {
	s.t.Helper()
	if code, text, err := s.try(s.t.Context(), key, method, path, body); err != nil || code != want {
		s.t.Errorf("%s %s: %d %s %v", method, path, code, text, err)
	}
}

// fresh makes a connection for each request.
var fresh = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}

func (s *siege) try(ctx context.Context, key, method, path, body string) (code int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.p.api+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	res, err := fresh.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	return res.StatusCode, string(all), err
}

// times are how long something took, again and again.
type times []time.Duration

// at gives a quantile of sorted times.
func (ts times) at(q float64) time.Duration {
	if len(ts) == 0 {
		return 0
	}
	return ts[min(int(q*float64(len(ts))), len(ts)-1)].Round(10 * time.Microsecond)
}

// paces collects times, and the moments from which others are counted.
type paces struct {
	mu    sync.Mutex
	took  map[string]times
	taken map[string]time.Time // when a message to an address had its 250
}

func (c *paces) add(what string, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.took[what] = append(c.took[what], d)
}

// day is what the good tenants do in so much time: twenty messages a second and
// five changes of policy, each on a connection of its own and begun when its time
// has come, whether those before are done or not. It gives how long things took,
// sorted.
func (s *siege) day(name string, d time.Duration) map[string]times {
	s.t.Helper()
	c := &paces{took: map[string]times{}, taken: map[string]time.Time{}}
	var all sync.WaitGroup
	send := func(what, key, to string) {
		all.Go(func() {
			begun := time.Now()
			if _, err := hand(s.p.submission, key, "app@sender.test", strings.NewReader(letter(2000)), to); err != nil {
				s.t.Errorf("%s: %v", to, err)
				return
			}
			c.add(what, time.Since(begun))
			c.mu.Lock()
			c.taken[to] = time.Now()
			c.mu.Unlock()
		})
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := range int(d / (50 * time.Millisecond)) {
		<-tick.C
		send("250", s.good.key, fmt.Sprintf("%s-%d@good%d.test", name, n, n%goodDomains))
		if n%4 != 0 {
			continue
		}
		send("250", s.strict.key, fmt.Sprintf("%s-%d@clear.test", name, n))
		all.Go(func() {
			begun := time.Now()
			s.change(fmt.Sprintf(`{"require_tls":%v}`, n%8 == 0))
			c.add("policy change", time.Since(begun))
		})
	}
	all.Wait()
	s.arrivals(c)
	s.told(c, s.strict, "bounce", "block event", c.taken)
	for _, ts := range c.took {
		slices.Sort(ts)
	}
	return c.took
}

// change changes the good tenant's policy. Where more strangers come at a moment than
// there are places for them, a caller may be cut off before it has said a word, and asks
// again as a client would; the time of that counts.
func (s *siege) change(patch string) {
	s.t.Helper()
	for range 2 {
		code, text, err := s.try(s.t.Context(), s.good.key, "PATCH", "/v3/user/settings/enforced_tls", patch)
		if err == nil {
			if code != 200 {
				s.t.Errorf("%s: %d %s", patch, code, text)
			}
			return
		}
		s.cutOff.Add(1)
	}
	s.ask(s.good.key, "PATCH", "/v3/user/settings/enforced_tls", patch, 200)
}

// arrivals waits for all that was sent to the good hosts, and for its events.
func (s *siege) arrivals(c *paces) {
	s.t.Helper()
	arrived := map[string]time.Time{}
	eventually(s.t, "all of the good tenant's mail has arrived", func() bool {
		for _, h := range s.goodHosts {
			for _, m := range h.Messages() {
				arrived[m.To[0].Address] = m.At
			}
		}
		for to := range c.taken {
			if strings.Contains(to, "@good") && arrived[to].IsZero() {
				return false
			}
		}
		return true
	})
	for to, at := range arrived {
		if begun, mine := c.taken[to]; mine {
			c.add("delivery", max(at.Sub(begun), 0))
		} else {
			delete(arrived, to)
		}
	}
	s.told(c, s.good, "delivered", "event", arrived)
}

// told waits until the consumer of a party has heard of a kind of event for each
// address of its own, and counts the time from what it tells of.
func (s *siege) told(c *paces, who party, kind, what string, since map[string]time.Time) {
	s.t.Helper()
	heard, seen := map[string]time.Time{}, 0
	eventually(s.t, "all "+what+"s are told", func() bool {
		requests := who.receiver.Requests()
		for _, q := range requests[seen:] {
			var batch []struct{ Event, Email string }
			if err := json.Unmarshal(q.Body, &batch); err != nil {
				s.t.Fatal(err)
			}
			for _, e := range batch {
				if e.Event == kind && heard[e.Email].IsZero() {
					heard[e.Email] = q.At
				}
			}
		}
		seen = len(requests)
		for to := range since {
			if heard[to].IsZero() && (who == s.strict) == strings.HasSuffix(to, "@clear.test") {
				return false
			}
		}
		return true
	})
	for to, at := range heard {
		if begun, mine := since[to]; mine {
			c.add(what, max(at.Sub(begun), 0))
		}
	}
}

// attack begins all attacks, and waits until each has come to what it can reach.
func (s *siege) attack() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.stop = cancel
	s.t.Cleanup(s.relent)
	for _, answer := range []http.HandlerFunc{
		func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(413) },
		func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		func(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, 1<<20)) },
	} {
		s.hook(s.evil.key, s.consumer(answer))
	}
	for i := range besiegers {
		s.stranger(ctx, &s.strangers[0], i, s.p.submission, "")
		s.stranger(ctx, &s.strangers[1], i, s.p.api, []string{
			"", // says nothing
			"GET /v3/scopes HTTP/1.1\r\nHost: x\r\nX-Slow: ",
			"GET /v3/scopes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SG.wrong.wrong\r\n\r\n",
			"POST /v3/api_keys HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
		}[i%4])
	}
	var wide, many []string
	for i := range 950 {
		wide = append(wide, fmt.Sprintf("a@d%d.pit%d.test", i, i%pits))
		many = append(many, fmt.Sprintf("a%d@pit%d.test", i, i%pits))
	}
	for i, pit := range s.pits {
		for j := i; j < len(wide); j += pits {
			s.world.Zone.MX(strings.TrimPrefix(wide[j], "a@"), pit.Name(), 10)
		}
	}
	args := fmt.Sprintf(`X-SMTPAPI: {"unique_args":{"k":"%s"}}`, strings.Repeat("x", 15<<10))
	for range 2 {
		s.flood(ctx, "Subject: wide\r\n\r\nx\r\n", wide, 500*time.Millisecond)
		s.flood(ctx, args+"\r\n\r\nx\r\n", many, 500*time.Millisecond)
		s.flood(ctx, "Subject: large\r\n\r\n"+strings.Repeat(strings.Repeat("x", 76)+"\r\n", 16<<20/78), many[:1], 200*time.Millisecond)
	}
	for range 64 {
		s.again(ctx, time.Second, func() { s.unfinishedHeader(ctx) })
	}
	for i := range 16 {
		s.again(ctx, 100*time.Millisecond, func() {
			s.try(ctx, s.evil.key, "POST", "/relay/v1/check", fmt.Sprintf(`{"domain":"pit%d.test"}`, i))
		})
	}
	silent := s.consumer(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() })
	for range 8 {
		s.again(ctx, 100*time.Millisecond, func() {
			s.try(ctx, s.evil.key, "POST", "/v3/user/webhooks/event/test", fmt.Sprintf(`{"url":%q}`, silent))
		})
	}
	n := 0
	s.again(ctx, 50*time.Millisecond, func() {
		n++
		s.try(ctx, s.evil.key, "PATCH", "/v3/user/settings/enforced_tls", fmt.Sprintf(`{"require_tls":%v}`, n%2 == 0))
	})
	eventually(s.t, "the attacks are in place", func() bool {
		return s.strangers[0].Load() >= 200 && s.strangers[1].Load() > 0 && s.unfinished.Load() > 10 && s.refused.Load() > 0
	})
}

// state tells how far the attacks have come.
func (s *siege) state() string {
	hanging := 0
	for _, h := range s.pits {
		hanging += h.Open()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprintf("%d strangers at submission, %d at the API, %d connections in tarpits, %d messages taken and %d refused (%v for want of disk), %d unfinished headers, %d policy changes cut off, %d MiB of memory",
		s.strangers[0].Load(), s.strangers[1].Load(), hanging, len(s.taken), s.refused.Load(),
		metricAt(s.t, s.p.admin, `tlsrelay_account_waiting_refusals_total{bound="disk"}`), s.unfinished.Load(), s.cutOff.Load(), peakMemory(s.t, s.p.cmd.Process.Pid)>>20)
}

// relent ends all attacks.
func (s *siege) relent() {
	s.stop()
	s.attackers.Wait()
}

// again does something until ctx ends, with a pause of half to one and a half of what is
// given.
func (s *siege) again(ctx context.Context, pause time.Duration, f func()) {
	s.attackers.Go(func() {
		for ctx.Err() == nil {
			f()
			select {
			case <-ctx.Done():
			case <-time.After(pause/2 + rand.N(pause)):
			}
		}
	})
}

// stranger holds a connection that shows no key, and comes again when it is ended.
// Half of them come from one address, and the others from many.
func (s *siege) stranger(ctx context.Context, open *atomic.Int64, i int, addr, first string) {
	from := net.IPv4(127, 0, 0, 9)
	if i%2 == 0 {
		from = net.IPv4(127, 0, 1+byte(i>>8), byte(i))
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
	s.again(ctx, 2*time.Second, func() {
		c, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return
		}
		defer c.Close()
		defer context.AfterFunc(ctx, func() { c.Close() })()
		open.Add(1)
		defer open.Add(-1)
		io.WriteString(c, first)
		io.Copy(io.Discard, c)
	})
}

// consumer is an endpoint of the hostile tenant.
func (s *siege) consumer(answer http.HandlerFunc) string {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		io.Copy(io.Discard, q.Body)
		answer(w, q)
	}))
	server.Start()
	s.t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL
}

// flood submits a message as the hostile tenant, over and over.
func (s *siege) flood(ctx context.Context, text string, to []string, pause time.Duration) {
	s.again(ctx, time.Second, func() {
		c, err := logIn(s.p.submission, s.evil.key)
		if err != nil {
			return
		}
		defer c.Close()
		for ctx.Err() == nil {
			id, err := handOver(c, "app@pit0.test", strings.NewReader(text), to...)
			if err != nil {
				s.refused.Add(1)
				return
			}
			s.mu.Lock()
			s.taken[id] = len(to)
			s.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	})
}

// unfinishedHeader holds a connection of the hostile tenant with a megabyte of
// header that does not end.
func (s *siege) unfinishedHeader(ctx context.Context) {
	c, err := net.Dial("tcp", s.p.submission)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	fmt.Fprintf(c, "EHLO x\r\n%s\r\nMAIL FROM:<a@pit0.test>\r\nRCPT TO:<a@pit0.test>\r\nDATA\r\n", login(s.evil.key))
	if _, err := io.WriteString(c, strings.Repeat("X-Padding: "+strings.Repeat("x", 900)+"\r\n", 1100)); err != nil {
		return
	}
	s.unfinished.Add(1)
	defer s.unfinished.Add(-1)
	io.Copy(io.Discard, c)
}

// judge finds what has its 250, also after the relay was killed, and nothing in
// clear that should not be.
func (s *siege) judge() {
	s.t.Helper()
	s.p.signal(syscall.SIGKILL)
	s.p = startProcess(s.t, s.file, s.env).up()
	for id, n := range s.taken {
		code, text, err := s.try(s.t.Context(), s.evil.key, "GET", "/relay/v1/messages/"+id, "")
		var m struct {
			Deliveries []struct{ Recipients []json.RawMessage }
		}
		found := 0
		if json.Unmarshal([]byte(text), &m) == nil {
			for _, d := range m.Deliveries {
				found += len(d.Recipients)
			}
		}
		if found != n {
			s.t.Errorf("message %s with %d recipients has its 250, and %d are there: %d %.200s %v", id, n, found, code, text, err)
		}
	}
	if n := s.clear.Accepted(); n != 0 || s.clear.LeakedInClear() {
		s.t.Errorf("%d messages left in clear; commands %q", n, s.clear.ClearCommands())
	}
	for _, h := range s.pits {
		h.Close()
	}
	s.p.signal(syscall.SIGTERM)
	if code := s.p.wait(); code != 0 {
		s.t.Errorf("exit code %d after SIGTERM\n%s", code, s.p.logged())
	}
}
