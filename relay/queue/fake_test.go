package queue

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/queue/fair"
	"tlsrelay/relay/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestFakeStore holds the store that the tests of this package run on to what every
// store must do.
func TestFakeStore(t *testing.T) {
	storetest.RunQueue(t, func(testing.TB) relay.Store { return newMemory() })
}

// memory is a relay.Store that keeps everything in memory, and can be made to fail.
type memory struct {
	mu       sync.Mutex
	messages map[relay.MessageID]relay.Message
	queued   map[relay.DeliveryKey]relay.Delivery
	finished map[relay.DeliveryKey]relay.Delivery
	queues   map[queueKey][]relay.DeliveryKey // in the order of their due times
	reports  []relay.Report
	bodies   map[relay.MessageID]body // where there was one: the others have a body that says hello
	open     map[relay.MessageID]int  // deliveries that have not finished
	commits  []relay.Transition       // those of outcomes
	claims   int
	passed   int // over by claims, for they were in hand
	stale    int
	fail     func(what string) error
}

type queueKey struct {
	lane relay.Lane
	who  account.ID
}

func newMemory() *memory {
	return &memory{
		messages: make(map[relay.MessageID]relay.Message),
		queued:   make(map[relay.DeliveryKey]relay.Delivery),
		finished: make(map[relay.DeliveryKey]relay.Delivery),
		queues:   make(map[queueKey][]relay.DeliveryKey),
		bodies:   make(map[relay.MessageID]body),
		open:     make(map[relay.MessageID]int),
	}
}

type draft struct {
	bytes.Buffer
	ended bool
}

func (d *draft) Size() int64 { return int64(d.Len()) }
func (d *draft) Discard()    { d.ended = true }

func (d *draft) Write(b []byte) (int, error) {
	if d.ended {
		return 0, errEnded
	}
	return d.Buffer.Write(b)
}

var errEnded = errors.New("the draft has ended")

type body []byte

func (b body) NewReader() io.Reader { return bytes.NewReader(b) }
func (b body) Size() int64          { return int64(len(b)) }
func (body) Close() error           { return nil }

func (s *memory) faulty(what string) error {
	if s.fail != nil {
		return s.fail(what)
	}
	return nil
}

func (s *memory) NewDraft(account.ID) relay.Draft { return &draft{} }

func (s *memory) Accept(ctx context.Context, m relay.Message, ds []relay.Delivery, b relay.Draft, _ []events.Event) error {
	d := b.(*draft)
	if d.ended {
		return errEnded
	}
	d.Discard()
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.faulty("accept"); err != nil {
		return err
	}
	if m.Size == 0 {
		m.Size = d.Size()
	}
	if d.Len() > 0 {
		s.bodies[m.ID] = d.Bytes()
	}
	s.add(m, ds)
	return nil
}

func (s *memory) add(m relay.Message, ds []relay.Delivery) {
	s.messages[m.ID] = m
	s.open[m.ID] += len(ds)
	for _, d := range ds {
		s.put(d)
	}
}

func (s *memory) put(d relay.Delivery) {
	s.queued[d.Key] = d
	p := queueKey{d.Lane, d.Account}
	keys := s.queues[p]
	i, _ := slices.BinarySearchFunc(keys, d, func(k relay.DeliveryKey, d relay.Delivery) int {
		return cmp.Or(s.queued[k].Due.Compare(d.Due), bytes.Compare(k.Message[:], d.Key.Message[:]), cmp.Compare(k.Number, d.Key.Number))
	})
	s.queues[p] = slices.Insert(keys, i, d.Key)
}

func (s *memory) remove(k relay.DeliveryKey) {
	d := s.queued[k]
	p := queueKey{d.Lane, d.Account}
	keys := s.queues[p]
	i := slices.Index(keys, k)
	if i == 0 {
		s.queues[p] = keys[1:]
	} else {
		s.queues[p] = slices.Delete(keys, i, i+1)
	}
	if len(s.queues[p]) == 0 {
		delete(s.queues, p)
	}
	delete(s.queued, k)
}

func (s *memory) Backlogs(_ context.Context, yield func(relay.Backlog) bool) error {
	s.mu.Lock()
	var all []relay.Backlog
	for p, keys := range s.queues {
		all = append(all, relay.Backlog{Lane: p.lane, Account: p.who, Due: s.queued[keys[0]].Due})
	}
	err := s.faulty("backlogs")
	s.mu.Unlock()
	for _, b := range all {
		if !yield(b) {
			break
		}
	}
	return err
}

func (s *memory) Claim(_ context.Context, lane relay.Lane, who account.ID, now time.Time, n int, lease func(int) time.Time, inHand func(relay.DeliveryKey) bool) (got []relay.Claimed, next time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims++
	if err := s.faulty("claim"); err != nil {
		return nil, next, err
	}
	p := queueKey{lane, who}
	i := 0
	for len(got) < n && i < len(s.queues[p]) {
		d := s.queued[s.queues[p][i]]
		if d.Due.After(now) {
			break
		}
		if inHand != nil && inHand(d.Key) {
			s.passed++
			i++
			continue
		}
		s.remove(d.Key)
		d.Attempts++
		d.Due = lease(d.Attempts)
		s.put(d)
		got = append(got, relay.Claimed{Message: s.messages[d.Key.Message], Delivery: d})
	}
	for _, k := range s.queues[p][i:] {
		if !slices.ContainsFunc(got, func(c relay.Claimed) bool { return c.Delivery.Key == k }) {
			return got, s.queued[k].Due, nil
		}
	}
	return got, next, nil
}

func (s *memory) Commit(_ context.Context, t relay.Transition) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.faulty("commit"); err != nil {
		return err
	}
	d, ok := s.queued[t.Before.Key]
	if !ok {
		s.stale++
		return relay.ErrNotFound
	}
	if !d.Due.Equal(t.Before.Due) || d.Attempts != t.Before.Attempts {
		s.stale++
		return relay.ErrStale
	}
	s.remove(d.Key)
	if t.Done {
		s.finished[d.Key] = t.After
		s.end(d.Key.Message)
	} else {
		s.put(t.After)
	}
	if len(t.Events) > 0 {
		s.commits = append(s.commits, t)
	}
	if t.Report != nil {
		s.reports = append(s.reports, *t.Report)
		s.bodies[t.Report.Message.ID] = t.Report.Body
		s.add(t.Report.Message, t.Report.Deliveries)
	}
	return nil
}

// end ends one delivery of a message; with the last, the message goes.
func (s *memory) end(id relay.MessageID) {
	if s.open[id]--; s.open[id] == 0 {
		delete(s.open, id)
		delete(s.messages, id)
		delete(s.bodies, id)
	}
}

func (s *memory) Body(_ context.Context, id relay.MessageID) (relay.Body, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.faulty("body"); err != nil {
		return nil, err
	}
	if _, ok := s.messages[id]; !ok {
		return nil, relay.ErrNotFound
	}
	if b := s.bodies[id]; b != nil {
		return b, nil
	}
	return body("Subject: test\r\n\r\nhello\r\n"), nil
}

// with looks at the store, alone.
func (s *memory) with(look func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	look()
}

func (s *memory) done() (n int) {
	s.with(func() { n = len(s.finished) })
	return n
}

func (s *memory) failing(f func(what string) error) { s.with(func() { s.fail = f }) }

// view is the state of a store at one moment.
type view struct {
	queued, finished map[relay.DeliveryKey]relay.Delivery
	reports          []relay.Report
	commits          []relay.Transition
	claims, stale    int
	passed           int
}

func (s *memory) look() (v view) {
	s.with(func() {
		v = view{
			queued: maps.Clone(s.queued), finished: maps.Clone(s.finished),
			reports: slices.Clone(s.reports), commits: slices.Clone(s.commits),
			claims: s.claims, stale: s.stale, passed: s.passed,
		}
	})
	return v
}

// senders demand nothing, but TLS of accounts whose id begins with "t", or as told.
type senders struct {
	mu    sync.Mutex
	asked []relay.Message
	told  map[account.ID]bool
	off   account.ID // is disabled
	err   error
}

func (s *senders) disable(who account.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = who
}

func (s *senders) demand(who account.ID, tls bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = map[account.ID]bool{who: tls}
}

func (s *senders) Sender(_ context.Context, m relay.Message, _ string) (policy.Sender, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, m)
	if s.off != "" && s.off == m.Account {
		return policy.Sender{}, account.ErrDisabled
	}
	return policy.Sender{Account: policy.Settings{RequireTLS: m.Account[0] == 't' || s.told[m.Account]}}, s.err
}

func (s *senders) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *senders) heard() []relay.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// hosts is a Deliverer that behaves by destination.
type hosts struct {
	mu       sync.Mutex
	behave   map[string]func(ctx context.Context, job deliver.Job) relay.Result
	attempts []attemptMade
	running  map[relay.DeliveryKey]bool
	at, most int // attempts under way, and their largest number
	twice    bool
}

type attemptMade struct {
	destination string
	who         account.ID
	at          time.Time
	job         deliver.Job
}

func newHosts() *hosts {
	return &hosts{
		behave:  make(map[string]func(context.Context, deliver.Job) relay.Result),
		running: make(map[relay.DeliveryKey]bool),
	}
}

func (h *hosts) Deliver(ctx context.Context, job deliver.Job) relay.Result {
	destination := job.Delivery.Lane.Destination
	h.mu.Lock()
	h.attempts = append(h.attempts, attemptMade{destination, job.Delivery.Account, time.Now(), job})
	h.twice = h.twice || h.running[job.Delivery.Key]
	h.running[job.Delivery.Key] = true
	h.at++
	h.most = max(h.most, h.at)
	behave := h.behave[destination]
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.at--
		delete(h.running, job.Delivery.Key)
	}()
	if behave == nil {
		return taken(job)
	}
	return behave(ctx, job)
}

func (h *hosts) set(destination string, f func(context.Context, deliver.Job) relay.Result) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.behave[destination] = f
}

func (h *hosts) made() []attemptMade {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.attempts)
}

func (h *hosts) peak() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.most
}

// to gives the times of the attempts at a destination.
func (h *hosts) to(destination string) (at []time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, a := range h.attempts {
		if a.destination == destination {
			at = append(at, a.at)
		}
	}
	return at
}

func taken(job deliver.Job) relay.Result {
	r := relay.Result{Feedback: relay.Healthy, Attempt: relay.Attempt{At: time.Now(), Ruling: policy.Allowed}}
	for range job.Delivery.Waiting() {
		r.Outcomes = append(r.Outcomes, relay.Outcome{Reply: relay.Reply{Code: 250, Text: "ok"}})
	}
	return r
}

func after(d time.Duration, then func(deliver.Job) relay.Result) func(context.Context, deliver.Job) relay.Result {
	return func(ctx context.Context, job deliver.Job) relay.Result {
		select {
		case <-time.After(d):
			return then(job)
		case <-ctx.Done():
			return unreached(job)
		}
	}
}

func unreached(job deliver.Job) relay.Result {
	r := relay.FailAll(job.Delivery, relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachDestination, Reason: events.ConnectFail, Status: "4.4.1",
		Reply: relay.Reply{Text: "connection refused"},
	}, time.Now())
	r.Feedback = relay.Trouble
	return r
}

func unknownUser(job deliver.Job) relay.Result {
	return relay.FailAll(job.Delivery, relay.Failure{
		Class: relay.Permanent, Reach: relay.ReachRecipient, Reason: events.ReplyPerm, Status: "5.1.1",
		Reply: relay.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user"},
	}, time.Now())
}

func refused(job deliver.Job) relay.Result {
	failed := policy.Demand{Requirement: policy.Encryption, Source: policy.FromAccount}
	r := relay.FailAll(job.Delivery, relay.Failure{
		Class: relay.Refused, Reach: relay.ReachDestination, Reason: events.StartTLSNotOffered, Status: "5.7.10",
		Reply: relay.Reply{Text: events.TLSBlocked + ": starttls_not_offered at mx"},
	}, time.Now())
	r.Attempt.Ruling = policy.Block
	r.History.Since = time.Now()
	r.History.Violation.Failed = failed
	return r
}

// world is a queue and all around it. Tests run it in a synctest bubble.
type world struct {
	t       testing.TB
	store   *memory
	over    relay.Store // what the queue is given: store, or something over it
	hosts   *hosts
	senders *senders
	o       Options
	q       *Queue

	mu     sync.Mutex
	events []events.Event
	onTell func(*events.Event)  // nil, or called before an event counts as told
	reg    *prometheus.Registry // of the queue that runs
	stop   func()
}

func newWorld(t testing.TB, o Options) *world {
	store := newMemory()
	return &world{t: t, store: store, over: store, hosts: newHosts(), senders: &senders{}, o: o}
}

// start runs a new queue over what the world has; stop ends it, as does the
// end of the test.
func (w *world) start() {
	w.reg = prometheus.NewRegistry()
	w.q = New(w.o, w.over, w.hosts, w.senders, w.told, zap.NewNop(), w.reg)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.q.Run(ctx) }()
	for w.q.Destinations() == nil {
		time.Sleep(time.Millisecond)
	}
	stopped := false
	w.stop = func() {
		w.t.Helper()
		if stopped {
			return
		}
		stopped = true
		w.q.call(func(s *scheduler, _ time.Time) { s.audit(w.t) })
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
		w.hosts.mu.Lock()
		defer w.hosts.mu.Unlock()
		if w.hosts.twice {
			w.t.Error("one delivery was attempted twice at a time")
		}
	}
	w.t.Cleanup(w.stop)
}

// audit finds that the counts of the loop agree with what there is.
func (s *scheduler) audit(t testing.TB) {
	t.Helper()
	var running, claimed fair.Slots
	var waiting [waitsForKinds]int
	inMemory, queues := make(map[*tenant]fair.Slots), make(map[*tenant]int)
	for key, dq := range s.queues {
		used, waits, turns := 0, 0, 0
		for who, aq := range dq.accounts {
			if aq.dest != dq || aq.tenant != s.tenants[who] {
				t.Errorf("%v: the part of %s is another's", key, who)
			}
			used += aq.used
			m := inMemory[aq.tenant]
			*m.Of(dq.standing) += aq.used
			inMemory[aq.tenant] = m
			queues[aq.tenant]++
			if aq.waitsFor != waitsForNothing {
				waits++
				waiting[aq.waitsFor]++
			}
			if aq.waitsFor == waitsForTurn {
				turns++
			}
		}
		*running.Of(dq.standing) += dq.running
		*claimed.Of(dq.standing) += dq.claimed
		if used != dq.running+dq.claimed || waits != dq.waiting || turns != dq.claimTurns {
			t.Errorf("%v: %d of %d+%d used, %d of %d waiting, %d of %d in turns", key, used, dq.running, dq.claimed, waits, dq.waiting, turns, dq.claimTurns)
		}
	}
	if running != s.running || claimed != s.claimed || waiting != s.waiting {
		t.Errorf("running %+v, not %+v; claimed %+v, not %+v; waiting %v, not %v", s.running, running, s.claimed, claimed, s.waiting, waiting)
	}
	for who, n := range s.tenants {
		if n.inMemory != inMemory[n] || n.queues != queues[n] {
			t.Errorf("account %s: in memory %+v, not %+v; %d queues, not %d", who, n.inMemory, inMemory[n], n.queues, queues[n])
		}
	}
}

func (w *world) told(e *events.Event) {
	if w.onTell != nil {
		w.onTell(e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, *e)
}

func (w *world) heard() []events.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

// kinds counts the events told by their kind.
func (w *world) kinds() map[events.Kind]int {
	n := make(map[events.Kind]int)
	for _, e := range w.heard() {
		n[e.Kind]++
	}
	return n
}

var errDisk = errors.New("disk on fire")

func message(who account.ID) relay.Message {
	now := time.Now()
	from, _ := relay.ParseAddress("sender@origin.test", false)
	return relay.Message{ID: relay.NewMessageID(now), Account: who, Accepted: now, From: from}
}

func recipients(addrs ...string) (rs []relay.Recipient) {
	for i, s := range addrs {
		a, err := relay.ParseAddress(s, false)
		if err != nil {
			panic(err)
		}
		rs = append(rs, relay.Recipient{Address: a, Index: i})
	}
	return rs
}

// send submits a message to the recipients.
func (w *world) send(who account.ID, to ...string) relay.Message {
	w.t.Helper()
	m := message(who)
	if err := w.q.Accept(context.Background(), m, recipients(to...), w.q.NewDraft(m.Account)); err != nil {
		w.t.Fatal(err)
	}
	return m
}

// pile puts n messages to one recipient into the store, behind the queue's
// back and each a millisecond older than the next.
func (w *world) pile(n int, who account.ID, to string) {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	for i := range n {
		m := message(who)
		m.Accepted = m.Accepted.Add(time.Duration(i-n) * time.Millisecond)
		m.Deliveries = 1
		w.store.add(m, relay.Split(m, recipients(to), func(string) policy.Class { return policy.ClassOpportunistic }))
	}
}

func laneTo(destination string) relay.Lane {
	return relay.Lane{Destination: destination, Class: policy.ClassOpportunistic}
}
