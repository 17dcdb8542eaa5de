package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a server whose handler knows the keys "SECRET of WHO", and some paths:
// /open wants none, /body reads one, /wait waits.
type world struct {
	t       *testing.T
	s       *Server
	logs    *observer.ObservedLogs
	revoked atomic.Value // a secret
	waiting chan struct{}
}

func start(t *testing.T, o Options) *world {
	core, logs := observer.New(zap.InfoLevel)
	w := &world{t: t, logs: logs, waiting: make(chan struct{})}
	w.revoked.Store("")
	o.Name, o.Listen = "test", "127.0.0.1:0"
	o.Holds = func(_ context.Context, secret string) error {
		if secret == w.revoked.Load() {
			return account.ErrDenied
		}
		return errors.New("it cannot say")
	}
	reg := prometheus.NewRegistry()
	var err error
	if w.s, err = Listen(o, http.HandlerFunc(w.serve), zap.New(core), reg); err != nil {
		t.Fatal(err)
	}
	relaytest.NoSeriesBorn(t, reg)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		w.await("all have left", func() bool {
			strangers, known := w.s.places.Counts()
			return strangers+known == 0 && value(w.s.metrics.open) == 0
		})
		if len(w.s.under) != 0 {
			t.Errorf("requests are under way: %v", w.s.under)
		}
	})
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	secret := r.Header.Get("Authorization")
	_, who, ok := strings.Cut(secret, " of ")
	switch {
	case r.URL.Path == "/open":
	case !ok:
		Denied(rw, r)
		rw.WriteHeader(http.StatusUnauthorized)
		return
	case !Shown(rw, r, account.ID(who), secret):
		rw.WriteHeader(http.StatusTooManyRequests)
		return
	}
	switch r.URL.Path {
	case "/body":
		io.Copy(io.Discard, r.Body)
	case "/wait":
		<-w.waiting
	}
}

func (w *world) await(what string, cond func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain: %s", what)
		}
	}
}

func (w *world) underWay(who account.ID) int {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	return w.s.under[who]
}

func value(m prometheus.Metric) float64 {
	var d dto.Metric
	if m.Write(&d) != nil {
		return -1
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}

func (w *world) counted(cause string) int {
	return int(value(w.s.metrics.rejected.WithLabelValues(cause)))
}

// caller is one connection.
type caller struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func (w *world) dial(from string) *caller {
	w.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", w.s.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &caller{c, w.t, bufio.NewReader(c)}
}

// asks sends the header of a request.
func (c *caller) asks(path, key string, more ...string) {
	c.t.Helper()
	if key != "" {
		more = append(more, "Authorization: "+key)
	}
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", path, strings.Join(append(more, "X: y"), "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// gets wants an answer, and the connection kept or not.
func (c *caller) gets(code int, kept bool) {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != code || res.Close == kept {
		c.t.Errorf("%s, close: %t; want %d, kept: %t", res.Status, res.Close, code, kept)
	}
	if !kept {
		c.over()
	}
}

// over wants the connection to have ended.
func (c *caller) over() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
		c.t.Errorf("it goes on: %q, %v", b, err)
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// A connection stays for a right key, and ends with the answer to anything else.
func TestKeepAliveIsForKeys(t *testing.T) {
	w := start(t, Options{})
	for name, steps := range map[string][]struct {
		path, key string
		code      int
		kept      bool
	}{
		"no key":         {{"/", "", 401, false}},
		"no key needed":  {{"/open", "", 200, false}},
		"a key":          {{"/", "a of 1", 200, true}, {"/", "a of 1", 200, true}, {"/open", "", 200, true}, {"/", "wrong", 401, false}},
		"keys in turn":   {{"/", "a of 1", 200, true}, {"/", "b of 1", 200, true}, {"/", "c of 2", 200, true}},
		"a key too late": {{"/open", "a of 1", 200, false}},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.dial("127.0.0.1")
			c.t = t
			for _, s := range steps {
				c.asks(s.path, s.key)
				c.gets(s.code, s.kept)
			}
			last := steps[len(steps)-1]
			w.await("it is known, or has left", func() bool { _, known := w.s.places.Counts(); return last.kept == (known == 1) })
			if last.kept && len(w.s.places.Logins()) != 1 {
				t.Errorf("%v", w.s.places.Logins())
			}
			c.Close()
			w.await("it has left", func() bool { _, known := w.s.places.Counts(); return known == 0 })
		})
	}
}

// Who has no key does not have its body waited for.
func TestBodyWithoutAKey(t *testing.T) {
	w := start(t, Options{maxRequests: 1})
	begun := time.Now()
	c := w.dial("127.0.0.1")
	c.asks("/body", "", "Content-Length: 1000")
	c.gets(401, false)
	slow := w.dial("127.0.0.1")
	slow.asks("/body", "a of 1", "Content-Length: 1000")
	w.await("its body is awaited", func() bool { return w.underWay("1") == 1 })
	// The account has its share of requests, and others have theirs.
	c = w.dial("127.0.0.1")
	c.asks("/body", "b of 1", "Content-Length: 1000")
	c.gets(429, false)
	c = w.dial("127.0.0.1")
	c.asks("/", "c of 2")
	c.gets(200, true)
	slow.Write(make([]byte, 1000))
	slow.gets(200, true)
	slow.asks("/", "a of 1")
	slow.gets(200, true)
	if w.counted("account_requests") != 1 || time.Since(begun) > 15*time.Second {
		t.Errorf("%d refused, after %v", w.counted("account_requests"), time.Since(begun))
	}
}

// The oldest stranger goes for the next, and it is in the log once; who has shown a
// key stays.
func TestStrangersGiveWay(t *testing.T) {
	w := start(t, Options{MaxConnections: 15, MaxStrangersPerIP: 2}) // 3 strangers
	known := w.dial("127.0.0.2")
	known.asks("/", "a of 1")
	known.gets(200, true)
	var all []*caller
	for i := range 10 {
		all = append(all, w.dial("127.0.0.2"))
		w.await("it has a place", func() bool {
			n, _ := w.s.places.Counts()
			return n == min(i+1, 2) && w.counted("gave_way") == max(0, i-1)
		})
		if i >= 2 {
			all[i-2].over()
		}
	}
	for i := range 3 {
		all = append(all, w.dial(fmt.Sprintf("127.0.1.%d", i)))
	}
	w.await("they give way to others, too", func() bool { return w.counted("gave_way") == 10 })
	last := all[len(all)-1]
	last.asks("/", "b of 2")
	last.gets(200, true)
	known.asks("/", "a of 1")
	known.gets(200, true)
	if lines := w.logs.FilterMessageSnippet("short of places").All(); len(lines) != 1 || lines[0].ContextMap()["source"] != "127.0.0.2/32" {
		t.Errorf("logged: %v", lines)
	}
}

// No account has all places: one that has most gives way to others, and renews its own.
func TestNoAccountTakesAllPlaces(t *testing.T) {
	w := start(t, Options{MaxConnections: 10, busyTime: time.Hour}) // 9 known
	var all []*caller
	for range 12 {
		c := w.dial("127.0.0.1")
		c.asks("/", "a of 1")
		c.gets(200, true)
		w.await("it rests", func() bool { return resting(w.s) })
		all = append(all, c)
	}
	for _, c := range all[:3] {
		c.over()
	}
	for i := range 3 {
		c := w.dial("127.0.0.1")
		c.asks("/", "b of 2")
		c.gets(200, true)
		all[3+i].over()
	}
	if n := w.counted("account_share"); n != 6 {
		t.Errorf("%d went", n)
	}
	for _, c := range all[6:] {
		c.asks("/wait", "a of 1")
	}
	w.await("all are at work", func() bool { return w.underWay("1") == 6 })
	c := w.dial("127.0.0.1")
	c.asks("/", "a of 1")
	c.gets(429, false)
	if n := w.counted("max_connections"); n != 1 {
		t.Errorf("%d were refused", n)
	}
	close(w.waiting)
	for _, c := range all[6:] {
		c.gets(200, true)
	}
}

func resting(s *Server) bool {
	for _, conns := range s.places.Logins() {
		for _, c := range conns {
			if !c.Overdue() {
				return false
			}
		}
	}
	return true
}

// A request that takes long does not keep a place from others for ever.
func TestLongRequestsGiveWay(t *testing.T) {
	w := start(t, Options{MaxConnections: 4, busyTime: 50 * time.Millisecond}) // 3 known
	var slow []*caller
	for i := range 3 {
		c := w.dial("127.0.0.1")
		c.asks("/body", "a of 1", "Content-Length: 1000")
		w.await("its body is awaited", func() bool { return w.underWay("1") == i+1 })
		slow = append(slow, c)
	}
	w.await("they take long", func() bool { return resting(w.s) })
	c := w.dial("127.0.0.1")
	c.asks("/", "b of 2")
	c.gets(200, true)
	slow[0].over()
}

// Connections end with their key; those of others, and those under way, go on.
func TestConnectionsEndWithTheirKey(t *testing.T) {
	w := start(t, Options{lookEvery: 5 * time.Millisecond, busyTime: time.Hour})
	resting, working, other := w.dial("127.0.0.1"), w.dial("127.0.0.1"), w.dial("127.0.0.1")
	for _, c := range []*caller{resting, other} {
		key := "a of 1"
		if c == other {
			key = "b of 1"
		}
		c.asks("/", key)
		c.gets(200, true)
	}
	working.asks("/wait", "a of 1")
	w.await("it is at work", func() bool { return w.underWay("1") == 1 })
	w.revoked.Store("a of 1")
	resting.over()
	close(w.waiting)
	working.gets(200, true) // and ends thereafter
	working.over()
	other.asks("/", "b of 1")
	other.gets(200, true)
	w.await("both are counted", func() bool { return w.counted("key_ended") == 2 })
	if lines := w.logs.FilterMessageSnippet("ended with their key").All(); len(lines) == 0 {
		t.Error("it is not logged")
	}
}

// A stranger has its time and no more, whatever it does to stay.
func TestStrangersHaveTheirTime(t *testing.T) {
	ca, err := relaytest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(relaytest.Cert{Names: []string{"relay.example"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		o := Options{strangerTime: time.Second}
		if secure {
			o.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		}
		w := start(t, o)
		begun := time.Now()
		var all []*caller
		for _, said := range []string{"", "\x16\x03\x01\x02\x00\x01\x00", "POST / HTTP/1.1\r\n", "POST / HTTP/1.1\r\nX: "} {
			if secure && strings.HasPrefix(said, "POST") {
				continue // it ends at once
			}
			c := w.dial("127.0.0.1")
			io.WriteString(c, said)
			all = append(all, c)
		}
		go func() {
			for range 100 {
				if _, err := io.WriteString(all[len(all)-1], "x"); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		for _, c := range all {
			io.Copy(io.Discard, c.r)
		}
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("TLS %t: after %v", secure, took)
		}
		w.await("they are counted", func() bool { return w.counted("login_timeout") >= 2 })
	}
}

// Too many wrong keys are answered slowly, and a right one at once.
func TestWrongKeysAreSlowed(t *testing.T) {
	w := start(t, Options{AuthFailuresPerMinute: 3, slowAnswer: time.Hour})
	for range 3 {
		c := w.dial("127.0.0.1")
		c.asks("/", "wrong")
		c.gets(401, false)
	}
	var held []*caller
	for range 4 {
		c := w.dial("127.0.0.1")
		c.asks("/", "wrong")
		held = append(held, c)
	}
	w.await("they are held", func() bool { return w.counted("auth_failures") == 4 })
	c := w.dial("127.0.0.1")
	c.asks("/", "wrong")
	c.gets(401, false) // there is no room to hold it
	c = w.dial("127.0.0.1")
	c.asks("/", "a of 1")
	c.gets(200, true)
	held[0].Close()
	w.await("one has gone", func() bool {
		_, n := w.s.failures.Counts(w.s.listener.Addr().(*net.TCPAddr).AddrPort().Addr())
		return n == 3
	})
	if n := value(w.s.metrics.authFailures); n != 8 {
		t.Errorf("%v failures are counted", n)
	}
	if lines := w.logs.FilterMessageSnippet("without a right key").All(); len(lines) != 1 {
		t.Errorf("logged: %v", lines)
	}
}

// HTTP/2 is not offered.
func TestNoHTTP2(t *testing.T) {
	ca, err := relaytest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(relaytest.Cert{Names: []string{"relay.example"}})
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, Options{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	c, err := tls.Dial("tcp", w.s.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if p := c.ConnectionState().NegotiatedProtocol; p == "h2" {
		t.Error("it is")
	}
	in := &caller{c, t, bufio.NewReader(c)}
	in.asks("/", "a of 1")
	in.gets(200, true)
}

// In whatever form a request comes, its answer ends a stranger's connection, and keeps
// the one of a caller with a key; what is behind it is not answered to a stranger.
func TestStrangeRequests(t *testing.T) {
	const body = "POST /body HTTP/1.1\r\nHost: x\r\n"
	for name, c := range map[string]struct {
		request string // KEY stands for a line with a key, if there is one
		closes  bool   // in any case
	}{
		"of HTTP/1.0":              {"GET / HTTP/1.0\r\nConnection: keep-alive\r\nKEY\r\n", false},
		"of HTTP/1.0, and no more": {"GET / HTTP/1.0\r\nKEY\r\n", true},
		"to a proxy":               {"GET http://other.example/ HTTP/1.1\r\nHost: x\r\nKEY\r\n", false},
		"for a tunnel":             {"CONNECT other.example:25 HTTP/1.1\r\nHost: x\r\nKEY\r\n", false},
		"for another protocol":     {"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nKEY\r\n", false},
		"about all":                {"OPTIONS * HTTP/1.1\r\nHost: x\r\nKEY\r\n", false},
		"that waits":               {body + "Content-Length: 1\r\nExpect: 100-continue\r\nKEY\r\nx", false},
		"in chunks":                {body + "Transfer-Encoding: chunked\r\nTrailer: X-Y\r\nKEY\r\n1;a=b\r\nx\r\n0\r\nX-Y: z\r\n\r\n", false},
		"two lengths":              {body + "Content-Length: 1\r\nContent-Length: 2\r\nKEY\r\nxx", true},
		"of two ends":              {body + "Content-Length: 99\r\nTransfer-Encoding: chunked\r\nKEY\r\n0\r\n\r\n", false},
	} {
		for _, key := range []string{"", "Authorization: a of 1\r\n"} {
			t.Run(fmt.Sprint(name, " ", key != ""), func(t *testing.T) {
				w := start(t, Options{})
				in := w.dial("127.0.0.1")
				in.t = t
				one := strings.Replace(c.request, "KEY\r\n", key+"\r\n", 1)
				io.WriteString(in, strings.Repeat(one, 3))
				n := 0
				for ; n < 3; n++ {
					res, err := http.ReadResponse(in.r, nil)
					for err == nil && res.StatusCode == http.StatusContinue {
						res, err = http.ReadResponse(in.r, nil)
					}
					if err != nil {
						break
					}
					io.Copy(io.Discard, res.Body)
				}
				want := 1
				if key != "" && !c.closes {
					want = 3
				}
				if n != want {
					t.Errorf("%d answers, want %d", n, want)
				}
				if want == 1 {
					in.over()
				}
			})
		}
	}
}
