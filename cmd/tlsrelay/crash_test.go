package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
)

var kills = flag.Int("kills", 5, "how often TestKillAndRestart kills the relay")

// crashWindow bounds the time between a receiver's acceptance and the commit
// of it. It is generous, for a machine that is busy with other tests, and a disk
// that is.
const crashWindow = 20 * time.Second

// Whatever the relay said 250 to is delivered or queued, however often and
// whenever it is killed. A message comes twice only where a kill fell between
// the receiver's final reply and the commit, and then nobody was told that it
// was delivered before the second copy arrived.
func TestKillAndRestart(t *testing.T) {
	c := newCrash(t)
	first := startProcess(t, c.file, c.env).up()
	c.register(first)
	stop := c.load(4)
	p := first
	for i := range *kills {
		if p == nil {
			p = startProcess(t, c.file, c.env)
		}
		if i%6 != 5 { // else it dies while it recovers
			c.addresses.set(p.up().submission)
			c.work(p, 20+rand.N(20))
		}
		select {
		case <-time.After(rand.N(300 * time.Millisecond)):
		case <-p.ended:
			t.Fatalf("the relay ended by itself\n%s", p.logged())
		}
		c.addresses.set("")
		p.signal(syscall.SIGKILL)
		c.killed = append(c.killed, time.Now())
		p = nil
	}
	p = startProcess(t, c.file, c.env).up()
	c.addresses.set(p.submission)
	stop()
	c.settle(p)
	c.judge(p)
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, p.logged())
	}
}

// crash is the world around a relay that is killed.
type crash struct {
	t         *testing.T
	world     *relaytest.World
	file, env string
	key       string
	data      string
	receiver  *relaytest.Receiver
	hosts     []*relaytest.Host
	down      *relaytest.Host // puts off all mail until settle
	killed    []time.Time
	addresses address

	mu    sync.Mutex
	acked map[string]bool // addresses of recipients of acknowledged messages
	large int             // acknowledged messages that went to spool files
}

func newCrash(t *testing.T) *crash {
	w := relaytest.Start(t)
	config := worldConfig(t, w)
	config.Log.Level = "info"
	config.Delivery.RetryAfter, config.Delivery.RetryMax = time.Second, 2*time.Second
	c := &crash{t: t, world: w, key: account.NewSecret(), data: config.DataDir, acked: map[string]bool{}}
	c.addresses.changed = make(chan struct{})
	c.file, c.env = configFile(t, config), "TLSRELAY_BOOTSTRAP_KEY="+c.key
	c.receiver = relaytest.StartReceiver(t)
	c.hosts = []*relaytest.Host{
		w.Host(t, "mx.quick.test"),
		// Time between acceptance and reply makes kills in between likely.
		w.Host(t, "mx.slow.test", relaytest.Script{End: relaytest.Reply{Delay: 15 * time.Millisecond}}),
		w.Host(t, "mx.down.test", relaytest.Script{Rcpt: relaytest.Reply{Code: 451, Text: "4.3.0 Later"}}),
	}
	c.down = c.hosts[2]
	return c
}

// register asks for the events of interest.
func (c *crash) register(p *process) {
	c.t.Helper()
	body := fmt.Sprintf(`{"url":%q,"enabled":true,"delivered":true,"bounce":true}`, c.receiver.URL())
	req, err := http.NewRequest("POST", "http://"+p.api+"/v3/user/webhooks/event/settings", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 201 {
		c.t.Fatalf("webhook: %s", res.Status)
	}
	c.t.Cleanup(http.DefaultClient.CloseIdleConnections)
}

// address is where clients find the relay now; "" while there is none.
type address struct {
	mu      sync.Mutex
	now     string
	stopped bool
	changed chan struct{}
}

func (a *address) set(s string) { a.change(func() { a.now = s }) }
func (a *address) stop()        { a.change(func() { a.stopped = true }) }

func (a *address) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
	close(a.changed)
	a.changed = make(chan struct{})
}

// get waits for an address other than not; "" means that the load is over.
func (a *address) get(not string) string {
	for {
		a.mu.Lock()
		now, stopped, changed := a.now, a.stopped, a.changed
		a.mu.Unlock()
		if stopped {
			return ""
		}
		if now != "" && now != not {
			return now
		}
		<-changed
	}
}

// load submits over n connections until the function it returns is called.
func (c *crash) load(n int) (stop func()) {
	var clients sync.WaitGroup
	for i := range n {
		clients.Go(func() {
			seq, addr := 0, ""
			for {
				if addr = c.addresses.get(addr); addr == "" {
					return
				}
				c.submit(addr, fmt.Sprint("c", i), &seq)
			}
		})
	}
	return func() { c.addresses.stop(); clients.Wait() }
}

// work waits until so many more recipients are answered for, and any message
// that went to a spool file, however slow the machine is.
func (c *crash) work(p *process, n int) {
	c.t.Helper()
	count := func() (recipients, large int) {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.acked), c.large
	}
	before, _ := count()
	eventually(c.t, "the load goes on", func() bool {
		select {
		case <-p.ended:
			c.t.Fatalf("the relay ended by itself\n%s", p.logged())
		default:
		}
		recipients, large := count()
		return recipients >= before+n && large > 0
	})
}

// submit hands in messages until the connection is lost or the load is over.
func (c *crash) submit(addr, name string, seq *int) {
	client, err := smtp.DialStartTLS(addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer client.Close()
	if client.Auth(sasl.NewPlainClient("", "apikey", c.key)) != nil {
		return
	}
	for c.addresses.running() {
		*seq++
		to := []string{fmt.Sprintf("%s-%d@%s", name, *seq, []string{"quick.test", "slow.test", "down.test"}[rand.N(3)])}
		if *seq%8 == 0 {
			to = append(to, fmt.Sprintf("%s-%d-second@quick.test", name, *seq))
		}
		size := 100 + rand.N(2000)
		if *seq%20 == 7 {
			size = 260<<10 + rand.N(100<<10)
		}
		// What came back with an error may have been taken or not; only what
		// came back without one counts.
		if client.SendMail("app@sender.test", to, strings.NewReader(letter(size))) != nil {
			return
		}
		c.mu.Lock()
		for _, a := range to {
			c.acked[a] = true
		}
		if size > 256<<10 {
			c.large++
		}
		c.mu.Unlock()
	}
}

func (a *address) running() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.stopped
}

// letter makes a message that says what its body must be.
func letter(size int) string {
	var body strings.Builder
	for body.Len() < size {
		fmt.Fprintf(&body, ".%072x\r\n", rand.Uint64())
	}
	sum := sha256.Sum256([]byte(body.String()))
	return fmt.Sprintf("From: <app@sender.test>\r\nSubject: load\r\nX-Sum: %x\r\n\r\n%s", sum, body.String())
}

// intact reports whether a body is the one its header tells of.
func intact(message []byte) bool {
	head, body, _ := bytes.Cut(message, []byte("\r\n\r\n"))
	_, rest, ok := bytes.Cut(head, []byte("X-Sum: "))
	sum := sha256.Sum256(body)
	return ok && bytes.HasPrefix(rest, []byte(hex.EncodeToString(sum[:])))
}

// settle waits until nothing is queued but what the host that is down puts
// off, finds that there, and has it delivered.
func (c *crash) settle(p *process) {
	c.t.Helper()
	eventually(c.t, "only down.test is queued", func() bool {
		var rows []relay.QueueRow
		getJSON(c.t, "http://"+p.admin+"/admin/v1/queue", &rows)
		return !slices.ContainsFunc(rows, func(r relay.QueueRow) bool { return r.Destination != "down.test" })
	})
	queued := map[string]bool{}
	var all []relay.Queued
	// In one page: the order changes with every attempt.
	getJSON(c.t, "http://"+p.admin+"/admin/v1/queue/messages?destination=down.test&limit=100000", &all)
	for _, q := range all {
		for _, r := range q.Delivery.Recipients {
			queued[r.Address.String()] = true
		}
	}
	for a := range c.acked {
		if strings.HasSuffix(a, "@down.test") && !queued[a] {
			c.t.Errorf("%s was acknowledged and is not queued", a)
		}
	}
	if err := c.down.SetScript(relaytest.Script{}); err != nil {
		c.t.Fatal(err)
	}
	c.down.HangUp() // those that are open play the old script
	eventually(c.t, "the queue is empty", func() bool {
		var rows []relay.QueueRow
		getJSON(c.t, "http://"+p.admin+"/admin/v1/queue", &rows)
		return len(rows) == 0
	})
}

// judge holds what the receivers got against what was acknowledged.
func (c *crash) judge(p *process) {
	arrivals := map[string][]time.Time{}
	for _, h := range c.hosts {
		for _, m := range h.Messages() {
			if !intact(m.Body) {
				c.t.Errorf("the message to %v came damaged", m.To)
			}
			for _, r := range m.To {
				arrivals[r.Address] = append(arrivals[r.Address], m.At)
			}
		}
	}
	for a := range c.acked {
		if len(arrivals[a]) == 0 {
			c.t.Errorf("%s was acknowledged and never arrived", a)
		}
	}
	told := c.told(arrivals)
	twice := 0
	for a, at := range arrivals {
		slices.SortFunc(at, time.Time.Compare)
		for i := 1; i < len(at); i++ {
			twice++
			c.excuse(a, at[i-1], at[i])
			if told[a].Before(at[i]) {
				c.t.Errorf("%s was reported delivered at %v and came again at %v", a, told[a], at[i])
			}
		}
	}
	c.sweptClean()
	c.t.Logf("%d kills; %d recipients of acknowledged messages, %d in spool files; %d arrived; %d duplicates, each around a kill",
		len(c.killed), len(c.acked), c.large, len(arrivals), twice)
	if len(c.acked) < 10**kills || c.large == 0 {
		c.t.Errorf("too little load to mean anything")
	}
}

// excuse accepts a second copy only if the relay was killed shortly after the
// first was accepted, before it could commit that.
func (c *crash) excuse(who string, first, second time.Time) {
	for _, k := range c.killed {
		if !k.Before(first) && k.Before(second) && k.Sub(first) < crashWindow {
			return
		}
	}
	c.t.Errorf("%s came at %v and again at %v, and no kill explains that", who, first, second)
}

// told waits for the delivered event of every arrival and gives when each
// first came. There is exactly one, however often the message came.
func (c *crash) told(arrivals map[string][]time.Time) map[string]time.Time {
	at, ids := map[string]time.Time{}, map[string]string{}
	seen := 0
	eventually(c.t, "everything that arrived is reported", func() bool {
		requests := c.receiver.Requests()
		for _, q := range requests[seen:] {
			var batch []struct {
				Event, Email string
				ID           string `json:"sg_event_id"`
			}
			if err := json.Unmarshal(q.Body, &batch); err != nil {
				c.t.Fatal(err)
			}
			for _, e := range batch {
				if e.Event != "delivered" || len(arrivals[e.Email]) == 0 {
					c.t.Errorf("%s event for %s, which arrived %d times", e.Event, e.Email, len(arrivals[e.Email]))
				}
				if id, ok := ids[e.Email]; ok && id != e.ID {
					c.t.Errorf("two different events say that %s was delivered", e.Email)
				}
				if _, ok := ids[e.Email]; !ok {
					ids[e.Email], at[e.Email] = e.ID, q.At
				}
			}
		}
		seen = len(requests)
		return len(at) >= len(arrivals)
	})
	return at
}

// sweptClean finds no spool file left over of all that was begun.
func (c *crash) sweptClean() {
	eventually(c.t, "no spool file is left", func() bool {
		names, err := os.ReadDir(filepath.Join(c.data, "spool"))
		if err != nil {
			c.t.Fatal(err)
		}
		return len(names) == 0
	})
}
