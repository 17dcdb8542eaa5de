package relaytest

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Receiver is an endpoint for webhooks. It keeps every request as it came.
type Receiver struct {
	url    string
	server *http.Server
	served sync.WaitGroup
	done   chan struct{}

	mu       sync.Mutex
	answers  []Response
	requests []Request
	changed  chan struct{}
}

// Response is one answer of a Receiver. The zero Response is 200 at once.
type Response struct {
	Status int
	Header http.Header
	Body   string
	Delay  time.Duration
	Do     Do // Close: hang up without an answer; Silence: never answer
}

// Request is one request as it came.
type Request struct {
	Method string
	Path   string
	Header http.Header
	Body   []byte
	At     time.Time
}

// NewReceiver starts a receiver over plain HTTP. It gives the answers in
// turn, and the last one (or 200) for ever after. Close it.
func NewReceiver(answers ...Response) (*Receiver, error) { return newReceiver(nil, answers) }

// NewTLSReceiver is NewReceiver over HTTPS, with a certificate for 127.0.0.1.
func NewTLSReceiver(ca *CA, answers ...Response) (*Receiver, error) {
	cert, err := ca.Issue(Cert{Names: []string{"127.0.0.1", "localhost"}})
	if err != nil {
		return nil, err
	}
	return newReceiver(&tls.Config{Certificates: []tls.Certificate{cert}}, answers)
}

func newReceiver(c *tls.Config, answers []Response) (*Receiver, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &Receiver{url: "http://" + ln.Addr().String(), done: make(chan struct{}), changed: make(chan struct{})}
	if c != nil {
		r.url = "https://" + ln.Addr().String()
		ln = tls.NewListener(ln, c)
	}
	r.Script(answers...)
	// A client that aborts is part of the game, not worth a log line.
	r.server = &http.Server{Handler: r, ErrorLog: log.New(io.Discard, "", 0)}
	r.served.Go(func() { r.server.Serve(ln) })
	return r, nil
}

// URL is where the receiver listens, without a path.
func (r *Receiver) URL() string { return r.url }

// Close stops the receiver.
func (r *Receiver) Close() {
	r.mu.Lock()
	if !isClosed(r.done) {
		close(r.done)
	}
	r.mu.Unlock()
	r.server.Close()
	r.served.Wait()
}

// Script sets the answers to come.
func (r *Receiver) Script(answers ...Response) {
	if len(answers) == 0 {
		answers = []Response{{}}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers = slices.Clone(answers)
}

// ServeHTTP records a request and answers as scripted.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.requests = append(r.requests, Request{q.Method, q.URL.RequestURI(), q.Header.Clone(), body, time.Now()})
	a := r.answers[0]
	if len(r.answers) > 1 {
		r.answers = r.answers[1:]
	}
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	r.answer(w, q, a)
}

func (r *Receiver) answer(w http.ResponseWriter, q *http.Request, a Response) {
	var after <-chan time.Time // nil: for ever
	if a.Do != Silence {
		t := time.NewTimer(a.Delay)
		defer t.Stop()
		after = t.C
	}
	select {
	case <-after:
	case <-r.done:
		return
	case <-q.Context().Done():
		return
	}
	if a.Do == Close || a.Do == Reset {
		panic(http.ErrAbortHandler)
	}
	for k, v := range a.Header {
		w.Header()[k] = v
	}
	if a.Status != 0 {
		w.WriteHeader(a.Status)
	}
	io.WriteString(w, a.Body)
}

// Requests are the requests so far.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Wait waits until n requests came in all.
func (r *Receiver) Wait(ctx context.Context, n int) ([]Request, error) {
	for {
		r.mu.Lock()
		got, changed := slices.Clone(r.requests), r.changed
		r.mu.Unlock()
		if len(got) >= n {
			return got, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return got, fmt.Errorf("%d of %d requests: %w", len(got), n, ctx.Err())
		}
	}
}

// Events are the JSON objects of all requests so far, in order of arrival.
func (r *Receiver) Events() ([]map[string]any, error) { return decodeEvents(r.Requests()) }

func decodeEvents(requests []Request) ([]map[string]any, error) {
	var all []map[string]any
	for _, q := range requests {
		var batch []map[string]any
		if err := json.Unmarshal(q.Body, &batch); err != nil {
			return all, err
		}
		all = append(all, batch...)
	}
	return all, nil
}

// WaitEvents waits until cond holds of all events so far, and gives them.
func (r *Receiver) WaitEvents(ctx context.Context, cond func(events []map[string]any) bool) ([]map[string]any, error) {
	for n := 0; ; {
		requests, err := r.Wait(ctx, n)
		got, bad := decodeEvents(requests)
		if err != nil || bad != nil || cond(got) {
			return got, errors.Join(err, bad)
		}
		n = len(requests) + 1
	}
}

// The headers of a signed request.
const (
	SignatureHeader = "X-Twilio-Email-Event-Webhook-Signature"
	TimestampHeader = "X-Twilio-Email-Event-Webhook-Timestamp"
)

// Verify checks the request's signature against a public key as the API gives
// it: SubjectPublicKeyInfo in base64.
func (q Request) Verify(publicKey string) error {
	der, err := base64.StdEncoding.DecodeString(publicKey)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return fmt.Errorf("public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return errors.New("public key: not ECDSA")
	}
	sig, err := base64.StdEncoding.DecodeString(q.Header.Get(SignatureHeader))
	if err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	sum := sha256.Sum256(append([]byte(q.Header.Get(TimestampHeader)), q.Body...))
	if !ecdsa.VerifyASN1(key, sum[:], sig) {
		return errors.New("signature does not match")
	}
	return nil
}
