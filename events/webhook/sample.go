package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"tlsrelay/events"
)

// testLimit is how long a test call may take, access token included.
const testLimit = 10 * time.Second

// Test posts a sample event of every kind to e once, whichever kinds e wants, signed and
// with an access token if e has them. It does not retry, needs no slot, and neither uses
// nor keeps a token of Sender's. It ends with ctx, or after ten seconds. The error says
// what went wrong and has no secret in it.
func (s *Sender) Test(ctx context.Context, e Endpoint) error {
	ctx, cancel := context.WithTimeout(ctx, testLimit)
	defer cancel()
	var objects [][]byte
	for _, ev := range samples(time.Now()) {
		objects = append(objects, ev.AppendJSON(nil))
	}
	a, _ := s.try(ctx, e, events.AppendBody(nil, objects...), s.newTokens())
	s.m.posts.WithLabelValues(string(a.class)).Inc()
	switch {
	case a.class == ClassOK:
		return nil
	case a.err != nil:
		return fmt.Errorf("webhook test: %s: %w", a.class, a.err)
	}
	return fmt.Errorf("webhook test: answered %d", a.code)
}

// samples returns one event of each kind. Each call is about a new message, so that
// consumers do not take a second test for a repetition.
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
