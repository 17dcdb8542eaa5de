package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tlsrelay/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is an Outbox in memory.
type memory struct {
	mu          sync.Mutex
	endpoints   map[string]Endpoint
	rows        map[string][]Row
	seq         uint64
	wake        func(string)
	shed        func(string, int, time.Time)
	mute        bool          // commits wake nobody
	ahead       time.Duration // how far the clock of new events is
	removeFails int           // how many more calls of Remove fail
	changed     chan struct{} // closed and replaced at every change
}

func newMemory(es ...Endpoint) *memory {
	m := &memory{endpoints: make(map[string]Endpoint), rows: make(map[string][]Row), changed: make(chan struct{})}
	for _, e := range es {
		m.endpoints[e.ID] = e
	}
	return m
}

// edit changes the memory and tells who waits for it.
func (m *memory) edit(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
	close(m.changed)
	m.changed = make(chan struct{})
}

// commit stores n events for an endpoint and gives their ids.
func (m *memory) commit(endpoint string, n int) (ids []string) {
	var wake func(string)
	m.edit(func() {
		for range n {
			m.seq++
			e := events.NewDeferred(events.Subject{MessageID: "0123456789012345678901", Email: "é@example.com", SMTPID: "<m>"},
				time.Now().Add(m.ahead), events.Session{}, int(m.seq), "later", events.DNSFail)
			m.rows[endpoint] = append(m.rows[endpoint], Row{m.seq, e.At, e.AppendJSON(nil)})
			ids = append(ids, e.ID)
		}
		if !m.mute {
			wake = m.wake
		}
	})
	if wake != nil {
		wake(endpoint)
	}
	return ids
}

func (m *memory) put(e Endpoint) { m.edit(func() { m.endpoints[e.ID] = e }) }

func (m *memory) delete(id string) { m.edit(func() { delete(m.endpoints, id) }) }

func (m *memory) Endpoint(_ context.Context, id string) (Endpoint, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.endpoints[id]
	return e, ok, nil
}

func (m *memory) Pending(context.Context) (ids []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, rows := range m.rows {
		if len(rows) > 0 {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (m *memory) Rows(_ context.Context, id string, s Span, maxBytes int) (got []Row, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows[id] {
		if r.Seq < s.First || r.Seq > s.Last {
			continue
		}
		maxBytes -= len(r.Object)
		if len(got) > 0 && maxBytes < 0 {
			break
		}
		got = append(got, r)
	}
	return got, nil
}

func (m *memory) Remove(ctx context.Context, id string, s Span) (err error) {
	m.edit(func() {
		if err = ctx.Err(); err != nil {
			return
		}
		if m.removeFails > 0 {
			m.removeFails--
			err = errors.New("disk trouble")
			return
		}
		m.rows[id] = slices.DeleteFunc(m.rows[id], func(r Row) bool { return s.First <= r.Seq && r.Seq <= s.Last })
	})
	return err
}

func (m *memory) Wake(f func(string)) { m.edit(func() { m.wake = f }) }

func (m *memory) Shed(f func(string, int, time.Time)) { m.edit(func() { m.shed = f }) }

func (m *memory) waiting(id string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.rows[id])
}

// drained waits until nothing waits for an endpoint.
func (m *memory) drained(t *testing.T, id string) {
	t.Helper()
	m.waitFor(t, id, 0)
}

// waitFor waits until so many events wait for an endpoint.
func (m *memory) waitFor(t *testing.T, id string, want int) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		m.mu.Lock()
		n, changed := len(m.rows[id]), m.changed
		m.mu.Unlock()
		if n == want {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%d events still wait for %s", n, id)
		}
	}
}

// receiver is a webhook endpoint on loopback that records what it is sent.
type receiver struct {
	*httptest.Server
	posts chan received
}

type received struct {
	from   string
	header http.Header
	body   []byte
	ids    []string // sg_event_id of each event
}

// receive starts a receiver; answer is called with the number of the post,
// from 1, after it was recorded.
func receive(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) *receiver {
	rec := &receiver{posts: make(chan received, 1000)}
	var mu sync.Mutex
	n := 0
	rec.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		mu.Lock()
		n++
		mine := n
		mu.Unlock()
		rec.posts <- received{r.RemoteAddr, r.Header.Clone(), body, idsOf(t, body)}
		if answer != nil {
			answer(mine, w, r)
		}
	}))
	rec.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what some tests want
	rec.StartTLS()
	t.Cleanup(rec.Close)
	return rec
}

// hang never answers, not even when the sender is gone: an answer that races
// with the end of the connection may still get through.
func hang(r *http.Request) {
	<-r.Context().Done()
	panic(http.ErrAbortHandler)
}

func (r *receiver) endpoint(id string) Endpoint {
	return Endpoint{ID: id, Account: "1", URL: r.URL + "/hook", Enabled: true, Deferred: true}
}

func (r *receiver) next(t *testing.T) received {
	t.Helper()
	select {
	case p := <-r.posts:
		return p
	case <-time.After(10 * time.Second):
		t.Fatal("nothing was posted")
		panic("unreachable")
	}
}

func (r *receiver) none(t *testing.T) {
	t.Helper()
	select {
	case p := <-r.posts:
		t.Errorf("posted: %s", p.body)
	default:
	}
}

// idsOf checks the form of a body and gives the ids of its events.
func idsOf(t *testing.T, body []byte) (ids []string) {
	if !bytes.HasPrefix(body, []byte("[{")) || !bytes.HasSuffix(body, []byte("}]\r\n")) {
		t.Errorf("body %q", body)
	}
	var objects []struct {
		ID string `json:"sg_event_id"`
	}
	if err := json.Unmarshal(body, &objects); err != nil {
		t.Errorf("%v in %q", err, body)
	}
	for _, o := range objects {
		ids = append(ids, o.ID)
	}
	if n := bytes.Count(body, []byte("},\r\n{")); n != len(ids)-1 {
		t.Errorf("%d separators between %d events", n, len(ids))
	}
	return ids
}

// quick are options for real sockets on loopback, with short delays.
func quick(r *receiver) Options {
	o := Options{
		FlushInterval: 5 * time.Millisecond, RetryAfter: 5 * time.Millisecond, RetryMax: 40 * time.Millisecond,
		AllowInsecure: true, RequestTimeout: 5 * time.Second, PollInterval: 20 * time.Millisecond,
	}
	if r != nil {
		o.RootCAs = r.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
	return o
}

// running runs a Sender until the test ends or stop is called.
func running(t *testing.T, o Options, box Outbox) (s *Sender, stop func()) {
	return run(t, New(o, box, zap.NewNop(), prometheus.NewPedanticRegistry()))
}

func run(t *testing.T, s *Sender) (*Sender, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

// transport is an http.RoundTripper for tests in false time, where sockets
// would keep the clock from moving.
type transport func(r *http.Request, body []byte) (status int, err error)

// turns orders a transport and the test that reads what it noted.
var turns sync.Mutex

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	turns.Lock()
	status, err := f(r, body)
	turns.Unlock()
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Body: http.NoBody, Request: r, Header: http.Header{}}, nil
}

// inFalseTime makes a Sender with the options' defaults over a transport.
func inFalseTime(t *testing.T, o Options, box Outbox, f transport) (*Sender, func()) {
	s := New(o, box, zap.NewNop(), prometheus.NewPedanticRegistry())
	s.client.Transport = f
	return run(t, s)
}

// total sums the counters of a collector.
func total(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}

func oldTLS(r *httptest.Server) {
	r.TLS = &tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}
}

func endpoints(n int) (es []Endpoint) {
	for i := range n {
		es = append(es, Endpoint{ID: fmt.Sprint("e", i), Account: "1", URL: fmt.Sprintf("https://e%d.example.com/", i), Enabled: true})
	}
	return es
}
