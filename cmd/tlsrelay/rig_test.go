package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"tlsrelay/configs"
	"tlsrelay/policy/account"
	"tlsrelay/relay/relaytest"
)

// The test binary is the program, too: a test that needs the relay in a
// process of its own runs this binary again with these words.
func TestMain(m *testing.M) {
	if os.Getenv("TLSRELAY_TEST_RUN_MAIN") != "" {
		os.Unsetenv("TLSRELAY_TEST_RUN_MAIN") // names no key
		os.Exit(run(os.Args[1:]))
	}
	goleak.VerifyTestMain(m)
}

// rig is a relay in this process, with a world of its own.
type rig struct {
	t      testing.TB
	world  *relaytest.World
	config configs.Config
	key    string // full access to the parent account
	app    *app
	stop   func() // drains and closes the relay; may be called twice
}

// newRig builds a world and a running relay, and takes both down again.
func newRig(t testing.TB, edit ...func(*configs.Config)) *rig {
	t.Helper()
	r := &rig{t: t, world: relaytest.Start(t), key: account.NewSecret()}
	r.config = worldConfig(t, r.world)
	for _, e := range edit {
		e(&r.config)
	}
	r.start()
	// Whatever a test did, the relay leaves no connection behind.
	t.Cleanup(func() { r.calm(r.world.Hosts()...) })
	return r
}

// worldConfig is a configuration that delivers into a world, impatiently.
func worldConfig(t testing.TB, w *relaytest.World) configs.Config {
	t.Helper()
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	if err := os.WriteFile(roots, w.CA.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := configs.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Hostname, c.DataDir, c.MinFreeDisk = "relay.example", filepath.Join(dir, "data"), 0
	c.Submission.Listen, c.API.Listen, c.Admin.Listen = []string{"127.0.0.1:0"}, "127.0.0.1:0", "127.0.0.1:0"
	c.Delivery.Resolver, c.Delivery.Port, c.Delivery.RootCAFile = w.Zone.Addr(), w.Port, roots
	c.Delivery.AllowPrivateAddresses = true
	c.Delivery.ConnectTimeout, c.Delivery.HandshakeTimeout = 5*time.Second, 5*time.Second
	c.Webhooks.AllowInsecure, c.Webhooks.FlushInterval = true, 20*time.Millisecond
	c.Webhooks.RetryAfter, c.Webhooks.RetryMax = 50*time.Millisecond, 200*time.Millisecond
	return c
}

// start opens the relay on what its data directory holds; after stop it is a
// restart.
func (r *rig) start() {
	r.t.Helper()
	log := zap.NewNop()
	if testing.Verbose() {
		log = zaptest.NewLogger(r.t)
	}
	var err error
	if r.app, err = newApp(r.config, log); err != nil {
		r.t.Fatal(err)
	}
	if _, err = bootstrap(context.Background(), r.app.store, r.config.DataDir, r.getenv); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	up, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.app.run(ctx, func() { close(up) }) }()
	<-up
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("stopping the relay: %v", err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
	r.t.Cleanup(r.stop)
	// Status codes are no closed set.
	relaytest.NoSeriesBorn(r.t, r.app.metrics, "tlsrelay_api_requests_total", "go_", "process_")
}

func (r *rig) getenv(name string) string {
	if name == "TLSRELAY_BOOTSTRAP_KEY" {
		return r.key
	}
	return ""
}

// submit hands in one message as an application would and gives its queue id.
func (r *rig) submit(from string, to ...string) string {
	r.t.Helper()
	id, err := r.trySubmit(r.key, from, to...)
	if err != nil {
		r.t.Fatalf("submitting to %v: %v", to, err)
	}
	return id
}

func (r *rig) trySubmit(key, from string, to ...string) (id string, err error) {
	text := fmt.Sprintf("From: <%s>\r\nTo: <%s>\r\nSubject: test\r\n\r\nHello.\r\n", from, strings.Join(to, ">, <"))
	return r.hand(key, from, strings.NewReader(text), to...)
}

// submitText hands in a message as it is.
func (r *rig) submitText(to string, text io.Reader) error {
	_, err := r.hand(r.key, "app@sender.test", text, to)
	return err
}

// hand is one conversation of a well-behaved client.
func (r *rig) hand(key, from string, text io.Reader, to ...string) (id string, err error) {
	return hand(r.app.submission.Addrs()[0].String(), key, from, text, to...)
}

// hand is one conversation of a well-behaved client with a relay that listens at
// addr.
func hand(addr, key, from string, text io.Reader, to ...string) (id string, err error) {
	c, err := logIn(addr, key)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if id, err = handOver(c, from, text, to...); err != nil {
		return "", err
	}
	return id, c.Quit()
}

// logIn begins such a conversation, over TLS.
func logIn(addr, key string) (*smtp.Client, error) {
	c, err := smtp.DialStartTLS(addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, err
	}
	if err := c.Auth(sasl.NewPlainClient("", "apikey", key)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// handOver submits one message and gives its queue id.
func handOver(c *smtp.Client, from string, text io.Reader, to ...string) (id string, err error) {
	if err := c.Mail(from, nil); err != nil {
		return "", err
	}
	for _, rcpt := range to {
		if err := c.Rcpt(rcpt, nil); err != nil {
			return "", err
		}
	}
	w, err := c.Data()
	if err != nil {
		return "", err
	}
	if _, err := io.Copy(w, text); err != nil {
		return "", err
	}
	res, err := w.CloseWithResponse()
	if err != nil {
		return "", err
	}
	_, id, _ = strings.Cut(res.StatusText, "queued as ")
	return strings.TrimSpace(id), nil
}

// call makes one request of the public API, with the parent's key unless a
// header says otherwise, and gives status and body.
func (r *rig) call(method, path, body string, header ...string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.app.api.addr()+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.key)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// set changes the parent's TLS settings by the public API.
func (r *rig) set(patch string) {
	r.t.Helper()
	if code, body := r.call("PATCH", "/v3/user/settings/enforced_tls", patch); code != 200 {
		r.t.Fatalf("PATCH %s: %d %s", patch, code, body)
	}
}

// webhook registers a signed endpoint for all events of the account that
// header names, and gives its receiver and public key.
func (r *rig) webhook(header ...string) (*relaytest.Receiver, string) {
	r.t.Helper()
	receiver := relaytest.StartReceiver(r.t)
	const settings = "/v3/user/webhooks/event/settings"
	code, body := r.call("POST", settings, fmt.Sprintf(
		`{"url":%q,"enabled":true,"processed":true,"delivered":true,"bounce":true,"deferred":true}`, receiver.URL()), header...)
	if code != 201 {
		r.t.Fatalf("POST %s: %d %s", settings, code, body)
	}
	var hook struct{ ID, PublicKey string }
	r.decode(body, &hook)
	code, body = r.call("PATCH", settings+"/signed/"+hook.ID, `{"enabled":true}`, header...)
	if code != 200 {
		r.t.Fatalf("signing: %d %s", code, body)
	}
	var signed struct {
		PublicKey string `json:"public_key"`
	}
	r.decode(body, &signed)
	return receiver, signed.PublicKey
}

func (r *rig) decode(text string, into any) {
	r.t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		r.t.Fatalf("%s: %v", text, err)
	}
}

// event waits for an event of an address and kind.
func (r *rig) event(receiver *relaytest.Receiver, email, kind string) map[string]any {
	r.t.Helper()
	var found map[string]any
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	all, err := receiver.WaitEvents(ctx, func(events []map[string]any) bool {
		for _, e := range events {
			if e["email"] == email && e["event"] == kind {
				found = e
			}
		}
		return found != nil
	})
	if err != nil {
		r.t.Fatalf("no %s event for %s: %v; got %v", kind, email, err, all)
	}
	return found
}

// command runs a command line against the rig's operator's listener.
func (r *rig) command(args ...string) (stdout string, err error) {
	return command("http://"+r.app.admin.addr(), args...)
}

// command runs a command line against the operator's listener at a URL.
func command(url string, args ...string) (stdout string, err error) {
	root := rootCommand()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append(args, "--admin", url))
	err = root.ExecuteContext(context.Background())
	return out.String(), err
}
