// Package storetest holds what every store must do, as one suite of tests. A
// store calls [Run] from a test of its own; crash points, which depend on how
// a store writes, are tested beside each store with the [World] of this
// package.
//
//	storetest.go   Run, and what the stories are told with
//	queue.go       accept, claim, commit, bodies
//	operator.go    hold, release, retry, take, drop, overview, evidence
//	outbox.go      events on their way to the webhooks
//	tenant.go      accounts, keys, endpoints, overrides, blocks
//	world.go       a workload that remembers what it was promised
package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
)

// Store is everything a store is to others.
type Store interface {
	relay.Store
	beyondQueue
	Run(ctx context.Context) error
	Close() error
}

// beyondQueue is what a store is beside a [relay.Store].
type beyondQueue interface {
	relay.Operator
	account.Store
	account.OverrideStore
	webhook.Outbox
	webhook.Store
	events.BlockStore
}

// queueOnly is a store that is asked for nothing beyond the queue.
type queueOnly struct {
	relay.Store
	beyondQueue
}

func (queueOnly) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (queueOnly) Close() error { return nil }

// Opener opens the store of one test. When it is called again, after a Close,
// it finds what was there.
type Opener func(t testing.TB) Store

// testCase is one test of the suite.
type testCase struct {
	name string
	test func(h *harness)
}

// queueCases ask for nothing but a [relay.Store].
func queueCases() []testCase {
	return []testCase{
		{"accepted as claimed", testAcceptedClaimed},
		{"refused drafts", testDrafts},
		{"large bodies", testLargeBody},
		{"claim order", testClaimOrder},
		{"claims exclude each other", testClaimExclusive},
		{"claims find what comes late", testClaimLate},
		{"claims pass over what is in hand", testClaimInHand},
		{"deferral", testDeferral},
		{"several destinations at once", testSeveralAtOnce},
		{"stale transitions", testStale},
		{"reports", testReport},
		{"backlogs", testBacklogs},
	}
}

// otherCases ask for a whole [Store].
func otherCases() []testCase {
	return []testCase{
		{"a message's way", testMessage},
		{"several destinations", testSeveralDestinations},
		{"what stale transitions leave", testStaleLeavesNothing},
		{"hold and release", testHold},
		{"hold while being tried", testHoldInFlight},
		{"retry", testRetry},
		{"take and drop", testDrop},
		{"lists", testQueueList},
		{"overview", testOverview},
		{"overview in parts", testOverviewParts},
		{"evidence", testFinished},
		{"outbox", testOutbox},
		{"outbox of messages that say much", testOutboxCommon},
		{"outbox with gaps", testOutboxGaps},
		{"outbox of a consumer that refuses some", testOutboxRefused},
		{"outbox under load", testOutboxOrder},
		{"outbox of deleted endpoints", testOutboxDeleted},
		{"accounts", testAccounts},
		{"deleted accounts", testDeleteAccount},
		{"keys", testKeys},
		{"endpoints", testEndpoints},
		{"rules about endpoints", testEndpointRules},
		{"endpoints of ended accounts", testEndpointOfEndedAccount},
		{"overrides", testOverrides},
		{"blocks", testBlocks},
	}
}

// Run runs the suite. fresh gives each test an empty store of its own.
func Run(t *testing.T, fresh func(t testing.TB) Opener) {
	run(t, append(queueCases(), otherCases()...), fresh)
}

// RunQueue runs the part of the suite that asks for nothing but a [relay.Store],
// for stores that are no more than that: those that other packages test with.
// fresh gives each test an empty store of its own. It is not closed and opened
// again.
func RunQueue(t *testing.T, fresh func(t testing.TB) relay.Store) {
	run(t, queueCases(), func(t testing.TB) Opener {
		s := queueOnly{Store: fresh(t)}
		return func(testing.TB) Store { return s }
	})
}

func run(t *testing.T, cases []testCase, fresh func(t testing.TB) Opener) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := newHarness(t, fresh(t))
			defer func() { h.stop() }() // of the last opening
			c.test(h)
		})
	}
}

// harness is a running store and the words its stories are told in.
type harness struct {
	*testing.T
	Store
	ctx  context.Context
	open Opener
	stop func()
	now  time.Time
}

func newHarness(t *testing.T, open Opener) *harness {
	h := &harness{T: t, ctx: t.Context(), open: open, now: time.Now().Truncate(time.Millisecond)}
	h.start()
	return h
}

func (h *harness) start() {
	h.Store = h.open(h.T)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func(s Store) { ended <- s.Run(ctx) }(h.Store)
	h.stop = func() {
		cancel()
		h.ok(<-ended)
		h.ok(h.Store.Close())
	}
}

// reopen stops the store and opens it again.
func (h *harness) reopen() {
	h.Helper()
	h.stop()
	h.start()
}

func (h *harness) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *harness) equal(got, want any, what string) {
	h.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		h.Fatalf("%s: got %s, want %s", what, g, w)
	}
}

func address(s string) relay.Address {
	a, err := relay.ParseAddress(s, true)
	if err != nil {
		panic(err)
	}
	return a
}

// message makes a message for the recipients, and its deliveries.
func (h *harness) message(rcpts ...string) (relay.Message, []relay.Delivery) {
	return NewMessage(h.now, rcpts...)
}

// NewMessage makes a message of account 1, and its deliveries.
func NewMessage(at time.Time, rcpts ...string) (relay.Message, []relay.Delivery) {
	m := relay.Message{
		ID: relay.NewMessageID(at), Account: account.Parent, Accepted: at,
		From: address("sender@example.org"), SMTPID: "<1@example.org>",
		UniqueArgs: map[string]string{"order": "7"},
	}
	var rs []relay.Recipient
	for i, r := range rcpts {
		rs = append(rs, relay.Recipient{Address: address(r), Index: i})
	}
	ds := relay.Split(m, rs, func(string) policy.Class { return policy.ClassEncrypt })
	m.Deliveries = len(ds)
	return m, ds
}

// accept has the store accept a message with a body.
func (h *harness) accept(m relay.Message, ds []relay.Delivery, body string) {
	h.Helper()
	h.ok(Accept(h.ctx, h.Store, m, ds, []byte(body)))
}

// Accept writes a body and has s accept the message with it.
func Accept(ctx context.Context, s relay.Store, m relay.Message, ds []relay.Delivery, body []byte) error {
	d := s.NewDraft("")
	if _, err := d.Write(body); err != nil {
		d.Discard()
		return err
	}
	var rcpts []relay.Recipient
	for _, d := range ds {
		rcpts = append(rcpts, d.Recipients...)
	}
	return s.Accept(ctx, m, ds, d, m.Processed(rcpts))
}

// queued accepts a fresh message and gives it.
func (h *harness) queued(rcpts ...string) (relay.Message, []relay.Delivery) {
	h.Helper()
	m, ds := h.message(rcpts...)
	h.accept(m, ds, "body of "+m.ID.String())
	return m, ds
}

// claim takes what is due in the lane of d, with a lease of an hour.
func (h *harness) claim(lane relay.Lane, now time.Time, n int) []relay.Claimed {
	h.Helper()
	got, _, err := h.Claim(h.ctx, lane, account.Parent, now, n, func(int) time.Time { return now.Add(time.Hour) }, nil)
	h.ok(err)
	return got
}

// claimOne takes the one delivery that must be due.
func (h *harness) claimOne(lane relay.Lane, now time.Time) relay.Claimed {
	h.Helper()
	got := h.claim(lane, now, 10)
	if len(got) != 1 {
		h.Fatalf("claimed %d deliveries, want 1", len(got))
	}
	return got[0]
}

// lane is where mail to a domain waits.
func lane(domain string) relay.Lane {
	return relay.Lane{Destination: domain, Class: policy.ClassEncrypt}
}

func schedule() relay.Schedule {
	return relay.Schedule{RetryAfter: 5 * time.Minute, RetryMax: time.Hour, Lifetime: 72 * time.Hour}
}

// Outcomes of an attempt, for all waiting recipients alike.

// Delivered is the transition of a delivery that a host took.
func Delivered(c relay.Claimed, now time.Time) relay.Transition {
	return step(c, now, relay.Outcome{Reply: relay.Reply{Code: 250, Text: "ok"}})
}

// Deferred is the transition of a delivery that failed for now.
func Deferred(c relay.Claimed, now time.Time) relay.Transition {
	return step(c, now, failure(relay.Temporary, events.ReplyTemp))
}

// Blocked is the transition of a delivery that a demand for TLS stopped.
func Blocked(c relay.Claimed, now time.Time) relay.Transition {
	return step(c, now, failure(relay.Refused, events.StartTLSNotOffered))
}

func failure(class relay.Class, reason events.Reason) relay.Outcome {
	reply := relay.Reply{Code: 451, Text: "not now"}
	return relay.Outcome{Reply: reply, Failure: &relay.Failure{
		Class: class, Reason: reason, Reply: reply, Status: "4.7.0", Host: "mx.example.com",
	}}
}

func step(c relay.Claimed, now time.Time, o relay.Outcome) relay.Transition {
	r := relay.Result{Attempt: relay.Attempt{At: now, Ruling: policy.Allowed, Hosts: []relay.HostEvidence{
		{Host: "mx.example.com", Address: "192.0.2.1", Stage: policy.StageReady},
	}}}
	if o.Failure != nil {
		r.Attempt.Reason = o.Failure.Reason
	}
	for range c.Delivery.Waiting() {
		r.Outcomes = append(r.Outcomes, o)
	}
	return c.Delivery.Step(c.Message, r, now, schedule())
}

// body reads a message's body, "" and the error when it cannot.
func (h *harness) body(id relay.MessageID) (string, error) {
	b, err := ReadBody(h.ctx, h.Store, id)
	return string(b), err
}

// ReadBody reads a message's body, twice, as deliveries do.
func ReadBody(ctx context.Context, s relay.Store, id relay.MessageID) ([]byte, error) {
	b, err := s.Body(ctx, id)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	first, err := io.ReadAll(b.NewReader())
	if err != nil {
		return nil, err
	}
	second, err := io.ReadAll(b.NewReader())
	if err != nil || !bytes.Equal(first, second) || int64(len(first)) != b.Size() {
		return nil, fmt.Errorf("body of %s: %d octets, then %d, of %d: %w", id, len(first), len(second), b.Size(), err)
	}
	return first, nil
}

// backlog gives all backlogs.
func (h *harness) backlog() []relay.Backlog {
	h.Helper()
	var all []relay.Backlog
	h.ok(h.Backlogs(h.ctx, func(b relay.Backlog) bool {
		all = append(all, b)
		return true
	}))
	return all
}
