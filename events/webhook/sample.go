package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"tlsrelay/events"
)

// Test posts a sample event of every kind to e once, whatever e is switched
// on for, signed and with an access token if e asks for them. Unlike the
// normal path it does not retry; the error says what went wrong and holds no
// secret. It is ErrBusy when others test as well: a test neither waits for a slot
// nor takes one from events.
func (s *Sender) Test(ctx context.Context, e Endpoint) error {
	done, ok := s.tests.begin(e.Account)
	if !ok {
		return ErrBusy
	}
	defer done()
	ctx, cancel := context.WithTimeout(ctx, testLimit)
	defer cancel()
	defer s.tokens.forget(e) // who tests may try a thousand clients
	var objects [][]byte
	for _, ev := range samples(time.Now()) {
		objects = append(objects, ev.AppendJSON(nil))
	}
	a := s.post(ctx, e, events.AppendBody(nil, objects...))
	s.m.posts.WithLabelValues(string(a.class)).Inc()
	switch {
	case a.class == ClassOK:
		return nil
	case a.err != nil:
		return fmt.Errorf("webhook test: %s: %w", a.class, a.err)
	}
	return fmt.Errorf("webhook test: answered %d", a.code)
}

// ErrBusy is the error of a test that would be one too many at a time.
var ErrBusy = errors.New("webhook: too many tests at a time")

const (
	maxTests       = 32 // under way at a time
	testsByAccount = 2
	testLimit      = 10 * time.Second
)

// tests counts the tests under way.
type tests struct {
	mu      sync.Mutex
	all     int
	account map[string]int
}

func (t *tests) begin(account string) (done func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all >= maxTests || t.account[account] >= testsByAccount {
		return nil, false
	}
	if t.account == nil {
		t.account = make(map[string]int)
	}
	t.all++
	t.account[account]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.all--
		if t.account[account]--; t.account[account] == 0 {
			delete(t.account, account)
		}
	}, true
}

// samples gives one event of each kind. Their message is a new one every
// time, so that consumers do not take the second test for a repetition.
func samples(at time.Time) []events.Event {
	var id [16]byte
	rand.Read(id[:]) // never fails since Go 1.24
	sub := events.Subject{
		MessageID: base64.RawURLEncoding.EncodeToString(id[:]),
		Email:     "recipient@example.com",
		SMTPID:    "<sample@example.com>",
		Category:  json.RawMessage(`["sample"]`),
	}
	sess := events.Session{LocalIP: "192.0.2.10", Host: "mx.example.com", TLSVersion: "1.3"}
	inClear := events.Session{LocalIP: "192.0.2.10", Host: "mx.example.com"}
	all := []events.Event{
		events.NewProcessed(sub, at),
		events.NewDeferred(sub, at, sess, 1, "451 4.3.0 try again later", events.ReplyTemp),
		events.NewDelivered(sub, at, sess, "250 2.0.0 Ok"),
		events.NewBounce(sub, at, sess, events.TypeBounce, "550 5.1.1 no such user", "5.1.1", events.ReplyPerm),
	}
	// A recipient bounces once; the block needs one of its own.
	sub.Recipient = 1
	return append(all, events.NewBounce(sub, at, inClear, events.TypeBlocked, events.TLSBlocked, "5.7.10", events.StartTLSNotOffered))
}
