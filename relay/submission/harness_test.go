package submission

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/certificate"
	"tlsrelay/relay/relaytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const host = "relay.example"

// memAccounts is an account store with one parent, one subuser and keys.
type memAccounts struct {
	account.Store // panics for what submission has no business with

	mu       sync.Mutex
	accounts map[account.ID]account.Account
	keys     map[string]account.Key
	trouble  error
}

func newAccounts() *memAccounts {
	return &memAccounts{
		accounts: map[account.ID]account.Account{
			account.Parent: {ID: account.Parent, Kind: account.KindParent, Username: "parent"},
			"2":            {ID: "2", Kind: account.KindSubuser, Username: "sub"},
		},
		keys: map[string]account.Key{},
	}
}

func (m *memAccounts) addKey(owner account.ID, scopes ...account.Scope) string {
	secret := account.NewSecret()
	id, hash, _ := account.SplitSecret(secret)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[id] = account.Key{ID: id, Hash: hash, Owner: owner, Scopes: scopes}
	return secret
}

func (m *memAccounts) Account(_ context.Context, id account.ID) (account.Account, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.accounts[id]
	switch {
	case m.trouble != nil:
		return a, m.trouble
	case !ok:
		return a, account.ErrNotFound
	}
	return a, nil
}

func (m *memAccounts) Key(_ context.Context, id string) (account.Key, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.keys[id]
	switch {
	case m.trouble != nil:
		return k, m.trouble
	case !ok:
		return k, account.ErrNotFound
	}
	return k, nil
}

func (m *memAccounts) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// memIntake keeps what was accepted.
type memIntake struct {
	mu    sync.Mutex
	got   []accepted
	fail  error
	write error
	hold  chan struct{} // when set, Accept waits for it
	open  int           // drafts begun and not ended
	quiet bool          // keep nothing

	writes atomic.Int64 // to all drafts
}

type accepted struct {
	m     relay.Message
	rcpts []relay.Recipient
	body  string
}

type memDraft struct {
	in    *memIntake
	b     bytes.Buffer
	ended bool
}

func (in *memIntake) NewDraft(account.ID) relay.Draft {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.open++
	return &memDraft{in: in}
}

func (d *memDraft) Write(b []byte) (int, error) {
	d.in.writes.Add(1)
	if d.in.write != nil {
		return 0, d.in.write
	}
	return d.b.Write(b)
}
func (d *memDraft) Size() int64 { return int64(d.b.Len()) }
func (d *memDraft) Discard()    { d.end() }
func (d *memDraft) end() {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	if d.ended {
		panic("draft ended twice")
	}
	d.ended = true
	d.in.open--
}

func (in *memIntake) Accept(ctx context.Context, m relay.Message, rcpts []relay.Recipient, body relay.Draft) error {
	d := body.(*memDraft)
	d.end()
	if in.hold != nil {
		select {
		case <-in.hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.fail != nil {
		return in.fail
	}
	if !in.quiet {
		in.got = append(in.got, accepted{m, rcpts, d.b.String()})
	}
	return nil
}

func (in *memIntake) all() []accepted {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]accepted(nil), in.got...)
}

func (in *memIntake) drafts() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.open
}

// world is a running server and what stands around it.
type world struct {
	t        testing.TB
	in       *memIntake
	accounts *memAccounts
	secret   string // of the subuser, with mail.send
	roots    *x509.CertPool
	srv      *Server
	reg      *prometheus.Registry
	stop     context.CancelFunc
	done     chan error
}

var testCert = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	dir, err := os.MkdirTemp("", "submission")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	certFile, keyFile, err := certificate.SelfSigned(dir, host)
	if err != nil {
		panic(err)
	}
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		panic(err)
	}
	certPEM, err := os.ReadFile(certFile)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return cert, roots
})

// start runs a server until the test ends. It listens in clear, allows AUTH
// there, and with implicit TLS, unless o is changed.
func start(t testing.TB, change func(*Options)) *world {
	t.Helper()
	return startLogging(t, zap.NewNop(), change)
}

func startLogging(t testing.TB, log *zap.Logger, change func(*Options)) *world {
	t.Helper()
	cert, roots := testCert()
	w := &world{t: t, in: &memIntake{}, accounts: newAccounts(), roots: roots, reg: prometheus.NewRegistry()}
	w.secret = w.accounts.addKey("2", account.MailSend)
	o := Options{
		Hostname: host, Listen: []string{"127.0.0.1:0"}, ListenTLS: []string{"127.0.0.1:0"},
		TLS:                &tls.Config{Certificates: []tls.Certificate{cert}},
		AllowPlaintextAuth: true, DrainTimeout: 5 * time.Second,
	}
	if change != nil {
		change(&o)
	}
	w.srv = New(o, w.in, w.accounts, log, w.reg)
	relaytest.NoSeriesBorn(t, w.reg)
	if err := w.srv.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.done = cancel, make(chan error, 1)
	go func() { w.done <- w.srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-w.done; err != nil {
			t.Error("Run:", err)
		}
		if n := w.in.drafts(); n != 0 {
			t.Errorf("%d drafts were never ended", n)
		}
		if n := len(w.srv.conns); n != 0 {
			t.Errorf("%d connections are still tracked", n)
		}
		if n := w.taken(); n != 0 {
			t.Errorf("%d places are still taken", n)
		}
	})
	return w
}

// taken counts the connections that have a place.
func (w *world) taken() int {
	strangers, known := w.srv.places.Counts()
	return strangers + known
}

// on is w for another test, such as one input of a fuzz target.
func (w *world) on(t testing.TB) *world {
	other := *w
	other.t = t
	return &other
}

// client is the other end, and as rude as a test wants.
type client struct {
	t testing.TB
	w *world
	net.Conn
	r *bufio.Reader
}

func (w *world) raw(addr net.Addr) *client {
	w.t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	return w.speaking(c)
}

// speaking is a client on a connection, which it does not use for long.
func (w *world) speaking(c net.Conn) *client {
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{w.t, w, c, bufio.NewReader(c)}
}

// dial connects in clear and reads the greeting.
func (w *world) dial() *client {
	w.t.Helper()
	c := w.raw(w.srv.Addrs()[0])
	c.expect("220 " + host)
	return c
}

// ready is dial, EHLO and AUTH.
func (w *world) ready() *client {
	w.t.Helper()
	c := w.dial()
	c.cmd("250", "EHLO client.example")
	c.auth()
	return c
}

func (w *world) tlsConfig() *tls.Config { return &tls.Config{RootCAs: w.roots, ServerName: host} }

// dialTLS connects with implicit TLS and reads the greeting.
func (w *world) dialTLS() *client {
	w.t.Helper()
	c := w.raw(w.srv.AddrsTLS()[0])
	c.secure()
	c.expect("220 " + host)
	return c
}

func (c *client) secure() {
	c.t.Helper()
	tc := tls.Client(c.Conn, c.w.tlsConfig())
	if err := tc.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
}

func (c *client) auth() {
	c.t.Helper()
	c.cmd("235 2.7.0 Authentication successful", "AUTH PLAIN "+plainResponse("apikey", c.w.secret))
}

func plainResponse(name, secret string) string {
	return b64("\x00" + name + "\x00" + secret)
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads one whole reply; "" at the end of the connection.
func (c *client) reply() string {
	var b strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		b.WriteString(line)
		if err != nil || len(line) < 4 || line[3] != '-' {
			return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\r\n"), "\r\n", "|")
		}
	}
}

func (c *client) expect(prefix string) string {
	c.t.Helper()
	got := c.reply()
	if !strings.HasPrefix(got, prefix) || prefix == "" && got != "" {
		c.t.Fatalf("reply %q, want %q", got, prefix)
	}
	return got
}

func (c *client) cmd(want, line string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	return c.expect(want)
}

// closed expects the connection to end without another word.
func (c *client) closed() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || isTimeout(err) {
		c.t.Fatalf("not closed: %q %v", rest, err)
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// envelope opens a transaction with one recipient.
func (c *client) envelope() {
	c.t.Helper()
	c.cmd("250 2.1.0", "MAIL FROM:<a@sender.example>")
	c.cmd("250 2.1.5", "RCPT TO:<b@rcpt.example>")
}

// data submits content (already dot-stuffed) and gives the reply.
func (c *client) data(content string) string {
	c.t.Helper()
	c.envelope()
	c.cmd("354", "DATA")
	c.send(content + "\r\n.\r\n")
	return c.reply()
}

const simple = "From: a@sender.example\r\nSubject: hi\r\n\r\nhello"

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never happened: " + what)
		}
	}
}

func loopback() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} }

// value reads a counter or gauge.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}
