package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/relay/relaytest"
)

// crowd keeps connections open, each doing the same, and opens the next where one was
// ended.
type crowd struct {
	stop    context.CancelFunc
	callers sync.WaitGroup
	dialed  atomic.Int64
}

// perSecond is how many connections a crowd opens in a second: what one process can
// bear that is attacker and victim at once.
const perSecond = 2000

// gather opens n connections to addr, so many a second, from one address of this
// machine or from as many. do gets each of them and returns when it has ended.
func gather(n, perSecond int, many bool, addr string, do func(net.Conn)) *crowd {
	ctx, stop := context.WithCancel(context.Background())
	c := &crowd{stop: stop}
	places := make(chan struct{}, n)
	c.callers.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case places <- struct{}{}:
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			i := c.dialed.Add(1)
			from := net.IPv4(127, 0, 0, 1)
			if many {
				from = net.IPv4(127, 1+byte(i>>16), byte(i>>8), byte(i))
			}
			c.callers.Go(func() {
				defer func() { <-places }()
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
				conn, err := d.DialContext(ctx, "tcp", addr)
				if err != nil {
					return
				}
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				do(conn)
			})
		}
	})
	return c
}

// scatter ends all of them.
func (c *crowd) scatter() {
	c.stop()
	c.callers.Wait()
}

// drip writes an octet now and then, until the relay has had enough.
func drip(c net.Conn) {
	gone := make(chan struct{})
	go func() { io.Copy(io.Discard, c); close(gone) }()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-gone:
			return
		case <-tick.C:
			if _, err := io.WriteString(c, "x"); err != nil {
				return
			}
		}
	}
}

// saying is a connection that says something once and listens until it is ended.
func saying(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		io.Copy(io.Discard, c)
	}
}

// pacer calls the API as its good callers do: on a connection that it keeps, and on a
// new one for each call.
type pacer struct {
	url  string
	kept *http.Client
	once *http.Client
}

func newPacer(t testing.TB, url string) *pacer {
	client := func(alone bool) *http.Client {
		transport := &http.Transport{DisableKeepAlives: alone, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport, Timeout: 10 * time.Second}
	}
	return &pacer{url, client(false), client(true)}
}

// pace is how calls went.
type pace struct {
	p50, p99 time.Duration
	failed   int
	first    error
}

func (p pace) String() string {
	return fmt.Sprintf("p50 %v, p99 %v, %d failed", p.p50.Round(10*time.Microsecond), p.p99.Round(10*time.Microsecond), p.failed)
}

// check holds a pace beside a crowd against the quiet one. They share the processors
// with the crowd, and with the race detector.
func (p pace) check(t *testing.T, what string, quiet pace) {
	t.Helper()
	if p.failed > 0 {
		t.Errorf("%s: %d calls failed, the first with %v", what, p.failed, p.first)
	}
	if p.p99 > max(4*time.Second, 4*quiet.p99) {
		t.Errorf("%s: %v", what, p)
	}
}

// calls makes n calls each way and gives how they went on new connections and on the
// one that is kept.
func (p *pacer) calls(n int, one func(c *http.Client, i int) error) (fresh, kept pace) {
	measure := func(c *http.Client) (m pace) {
		var took []time.Duration
		for i := range n {
			begun := time.Now()
			if err := one(c, i); err != nil {
				if m.failed++; m.first == nil {
					m.first = err
				}
			}
			took = append(took, time.Since(begun))
			if m.failed >= 3 {
				break // it fails: how long it fails is of no interest
			}
		}
		slices.Sort(took)
		m.p50, m.p99 = took[len(took)/2], took[len(took)*99/100]
		return m
	}
	return measure(p.once), measure(p.kept)
}

// get asks with a key, or without one, and wants 200.
func get(c *http.Client, url, key string) error {
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return err
	}
	return answered(c, req, key)
}

// tenant is one call of a tenant: by turns it reads its settings and changes them.
func (p *pacer) tenant(key string) func(*http.Client, int) error {
	return func(c *http.Client, i int) error {
		url := p.url + "/v3/user/settings/enforced_tls"
		if i%2 == 0 {
			return get(c, url, key)
		}
		req, err := http.NewRequest("PATCH", url, strings.NewReader(fmt.Sprintf(`{"require_tls":%t}`, i%4 == 1)))
		if err != nil {
			return err
		}
		return answered(c, req, key)
	}
}

func answered(c *http.Client, req *http.Request, key string) error {
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", res.Status)
	}
	return nil
}

// hostileCaller is what n connections at a time do.
type hostileCaller struct {
	name string
	n    int
	many bool   // from as many addresses; else from that of the good ones
	tls  bool   // the API has TLS
	why  string // a cause that is counted; "": any
	do   func(net.Conn)
}

// hostileCallers are callers of the API who mean no good. key is that of an account of
// their own.
func hostileCallers(key string) []hostileCaller {
	const path = "/v3/user/settings/enforced_tls"
	auth := "Authorization: Bearer " + key + "\r\n"
	return []hostileCaller{
		{name: "silent", n: 8000, why: "gave_way", do: saying("")}, // this process has both ends of them
		{name: "silent, from everywhere", n: 8000, why: "gave_way", many: true, do: saying("")},
		{name: "half a header", n: 2000, why: "gave_way", do: saying("GET / HTTP/1.1\r\nHost: x\r\n")},
		{name: "a header octet by octet", n: 2000, why: "gave_way", do: func(c net.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX: "); drip(c) }},
		{name: "keep-alive without a key", n: 2000, do: saying("GET /relay/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n")},
		{name: "a body octet by octet, without a key", n: 2000, many: true, do: func(c net.Conn) {
			io.WriteString(c, "PATCH "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 8000\r\n\r\n{")
			drip(c)
		}},
		{name: "wrong keys", n: 2000, why: "auth_failures", do: saying("GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SG.wrong.wrong\r\n\r\n")},
		{name: "wrong keys, from everywhere", n: 2000, many: true, do: saying("GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer SG.wrong.wrong\r\n\r\n")},
		{name: "HTTP/2 in clear", n: 2000, do: saying("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")},
		{name: "keep-alive with a key of their own", n: 8000, why: "account_share", do: saying("GET " + path + " HTTP/1.1\r\nHost: x\r\n" + auth + "\r\n")},
		{name: "a body octet by octet, with a key of their own", n: 2000, why: "account_requests", do: func(c net.Conn) {
			io.WriteString(c, "PATCH "+path+" HTTP/1.1\r\nHost: x\r\n"+auth+"Content-Length: 8000\r\n\r\n{")
			drip(c)
		}},
		{name: "answers that are not read, with a key of their own", n: 200, do: func(c net.Conn) {
			c.(*net.TCPConn).SetReadBuffer(4 << 10)
			io.WriteString(c, strings.Repeat("GET /v3/scopes HTTP/1.1\r\nHost: x\r\n"+auth+"\r\n", 25))
			for err := error(nil); err == nil; time.Sleep(300 * time.Millisecond) {
				_, err = io.WriteString(c, "x")
			}
		}},
		{name: "requests without a pause, with a key of their own", n: 20, do: func(c net.Conn) {
			go io.Copy(io.Discard, c)
			some := strings.Repeat("GET /v3/scopes HTTP/1.1\r\nHost: x\r\n"+auth+"\r\n", 20)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(c, some)
			}
		}},
		{name: "half a TLS handshake", n: 2000, why: "gave_way", tls: true, do: saying("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")},
		{name: "silent where TLS is due", n: 2000, why: "gave_way", many: true, tls: true, do: saying("")},
	}
}

// Whatever callers without a key do, and whatever one account does with its own, from
// the address of the good ones or from a thousand others: whoever has a key is
// answered, at once, on a new connection and on an old one.
func TestHostileCallers(t *testing.T) {
	const calls = 100
	ca, err := relaytest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	files := pair{filepath.Join(t.TempDir(), "crt"), filepath.Join(t.TempDir(), "key")}
	files.write(t, ca, "relay.example")
	for _, secure := range []bool{false, true} {
		r := newRig(t, func(c *configs.Config) {
			if secure {
				c.API.CertFile, c.API.KeyFile = files.cert, files.key
			}
		})
		addr, url := r.app.api.addr(), "http://"+r.app.api.addr()
		if secure {
			url = "https://" + addr
		}
		good := newPacer(t, url)
		quiet, kept := good.calls(calls, good.tenant(r.key))
		t.Logf("TLS %t, quiet: new connections %v; kept %v", secure, quiet, kept)
		theirs := r.newSubuser("hostile").Secret
		for _, h := range hostileCallers(theirs) {
			if h.tls != secure {
				continue
			}
			t.Run(h.name, func(t *testing.T) {
				counted := func() float64 {
					return r.metric(fmt.Sprintf(`tlsrelay_http_rejected_total{cause=%q,listener="api"}`, h.why))
				}
				before := counted()
				all := gather(h.n, perSecond, h.many, addr, h.do)
				defer all.scatter()
				eventually(t, "all have come", func() bool { return all.dialed.Load() >= int64(h.n) })
				fresh, kept := good.calls(calls, good.tenant(r.key))
				t.Logf("%d came: new connections %v; kept %v", all.dialed.Load(), fresh, kept)
				for what, p := range map[string]pace{"on new connections": fresh, "on one that is kept": kept} {
					p.check(t, what, quiet)
				}
				if h.why != "" {
					eventually(t, "it is counted as "+h.why, func() bool { return counted() > before })
				}
			})
		}
	}
}

// On the operator's listener, local processes without a token keep neither Prometheus
// nor the operator out, whether there is a token or not.
func TestHostileLocals(t *testing.T) {
	const n, calls = 2000, 50
	for _, token := range []string{"", "s3cret"} {
		r := newRig(t, func(c *configs.Config) { c.Admin.Token = token })
		addr := r.app.admin.addr()
		watch := newPacer(t, "http://"+addr)
		probe := func(c *http.Client, i int) error {
			return get(c, watch.url+[]string{"/metrics", "/healthz", "/readyz", "/admin/v1/queue"}[i%4], token)
		}
		quiet, _ := watch.calls(calls, probe)
		t.Logf("token %q, quiet: %v", token, quiet)
		for name, do := range map[string]func(net.Conn){
			"silent":     saying(""),
			"keep-alive": saying("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
			"half a body": saying("POST /admin/v1/check HTTP/1.1\r\nHost: localhost\r\n" +
				"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"),
		} {
			t.Run(name, func(t *testing.T) {
				all := gather(n, perSecond, false, addr, do)
				defer all.scatter()
				eventually(t, "all have come", func() bool { return all.dialed.Load() >= n })
				fresh, kept := watch.calls(calls, probe)
				t.Logf("%d came: new connections %v; kept %v", all.dialed.Load(), fresh, kept)
				fresh.check(t, "on new connections", quiet)
				kept.check(t, "on one that is kept", quiet)
			})
		}
	}
}
