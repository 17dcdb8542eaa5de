package webhook

import (
	"cmp"
	"context"
	"crypto/x509"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// Options are the settings of a [Sender]. What is zero has the default given.
type Options struct {
	FlushInterval time.Duration // a batch is posted when its oldest event has this age, 1s,
	FlushBytes    int           // or it is this big, 768 KiB
	RetryAfter    time.Duration // first retry, 2s; doubles
	RetryMax      time.Duration // up to this, 10m
	RetryFor      time.Duration // how long after it happened an event is retried, 24h
	// AllowInsecure permits http and private addresses as targets, but never the
	// listeners of this process (Exclude).
	AllowInsecure  bool
	RequestTimeout time.Duration  // of one POST with everything it needs, 30s
	MaxPosts       int            // under way at once, all endpoints together, 64
	RootCAs        *x509.CertPool // nil: the system's
	// PollInterval is how often the outbox is asked for rows that Wake did not announce
	// (another machine committed them), and how often a waiting endpoint is read again;
	// 10s.
	PollInterval time.Duration
}

func (o Options) withDefaults() Options {
	o.FlushInterval = positive(o.FlushInterval, time.Second)
	o.FlushBytes = positive(o.FlushBytes, 768<<10)
	o.RetryAfter = positive(o.RetryAfter, 2*time.Second)
	o.RetryMax = max(positive(o.RetryMax, 10*time.Minute), o.RetryAfter)
	o.RetryFor = positive(o.RetryFor, 24*time.Hour)
	o.RequestTimeout = positive(o.RequestTimeout, 30*time.Second)
	o.MaxPosts = positive(o.MaxPosts, 64)
	o.PollInterval = positive(o.PollInterval, 10*time.Second)
	return o
}

func positive[T cmp.Ordered](v, otherwise T) T {
	var zero T
	if v > zero {
		return v
	}
	return otherwise
}

// Sender drains the outbox. Each endpoint with events waiting has a loop of its own, which
// ends when none is left. The loops share the slots for posts under way.
type Sender struct {
	o      Options
	box    Outbox
	log    *zap.Logger
	m      *metrics
	client *http.Client
	tokens *tokens
	shed   shed

	listeners []netip.AddrPort // of this process; see Exclude

	// slots bounds the posts under way. An endpoint that failed or was slow the last
	// time also needs one of doubtful. There are half as many of these, so that such
	// endpoints never take all slots.
	slots, doubtful chan struct{}

	mu    sync.Mutex
	loops map[string]*loop
	start func(*loop) // nil while not running
	wg    sync.WaitGroup
}

// New makes a Sender over box. Metrics are registered with reg unless it is nil.
func New(o Options, box Outbox, log *zap.Logger, reg prometheus.Registerer) *Sender {
	o = o.withDefaults()
	s := &Sender{
		o: o, box: box, log: log,
		slots:    make(chan struct{}, o.MaxPosts),
		doubtful: make(chan struct{}, (o.MaxPosts+1)/2),
		loops:    make(map[string]*loop),
	}
	s.client = s.newClient()
	s.tokens = s.newTokens()
	s.m = newMetrics(reg, s)
	box.Shed(s.shedOf)
	return s
}

func (s *Sender) newTokens() *tokens { return &tokens{client: s.client, insecure: s.o.AllowInsecure} }

// Run drains the outbox until ctx ends, and returns nil once everything under way has
// ended. A Sender runs once at a time.
func (s *Sender) Run(ctx context.Context) error {
	s.mu.Lock()
	s.start = func(l *loop) { s.wg.Go(func() { l.drain(ctx) }) }
	s.mu.Unlock()
	s.box.Wake(s.wake)
	defer func() {
		s.mu.Lock()
		s.start = nil
		s.mu.Unlock()
		s.wg.Wait()
		s.tellAllShed(true)
		s.client.CloseIdleConnections()
	}()
	poll := time.NewTicker(s.o.PollInterval)
	defer poll.Stop()
	for {
		ids, err := s.box.Pending(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Error("webhook outbox cannot be read", zap.Error(err))
		}
		for _, id := range ids {
			s.wake(id)
		}
		s.tellAllShed(false)
		select {
		case <-ctx.Done():
			return nil
		case <-poll.C:
		}
	}
}

// wake makes the loop of an endpoint look at the outbox. It starts one if there is none.
func (s *Sender) wake(endpoint string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.start == nil {
		return // Run begins with all endpoints that have rows
	}
	l := s.loops[endpoint]
	if l == nil {
		l = &loop{s: s, id: endpoint, woken: make(chan struct{}, 1), plan: newPlan(s.o)}
		s.loops[endpoint] = l
		s.start(l)
	}
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// finish removes l from the list, unless it was woken since it last looked.
func (s *Sender) finish(l *loop) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(l.woken) > 0 {
		return false
	}
	delete(s.loops, l.id)
	return true
}

// acquire waits for a slot; ok is false when ctx ended first. Waiters get slots in the
// order in which they came.
func (s *Sender) acquire(ctx context.Context, doubtful bool) (release func(), ok bool) {
	take := func(c chan struct{}) bool {
		select {
		case c <- struct{}{}:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if doubtful && !take(s.doubtful) {
		return nil, false
	}
	release = func() {
		<-s.slots
		if doubtful {
			<-s.doubtful
		}
	}
	if !take(s.slots) {
		if doubtful {
			<-s.doubtful
		}
		return nil, false
	}
	return release, true
}

// EndpointStatus is the state of one endpoint with events waiting.
type EndpointStatus struct {
	ID        string        `json:"id"`
	Account   string        `json:"account"`
	Oldest    time.Time     `json:"oldest,omitzero"` // when the oldest waiting event happened that is not set aside
	Lag       time.Duration `json:"lag"`             // how long ago that is
	Aside     int           `json:"aside"`           // events that were refused alone and are set aside
	Off       bool          `json:"off,omitempty"`   // switched off; its events wait and expire
	Failures  int           `json:"failures"`
	LastError Class         `json:"last_error,omitempty"`
	LastCode  int           `json:"last_code,omitempty"` // HTTP status of the last failure
	NextTry   time.Time     `json:"next_try,omitzero"`
}

// Status lists the endpoints with events waiting, the longest wait first.
func (s *Sender) Status() []EndpointStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	all := []EndpointStatus{}
	for _, l := range s.loops {
		st := l.status
		if st.Oldest.IsZero() && st.Aside == 0 {
			continue
		}
		if st.ID = l.id; !st.Oldest.IsZero() {
			st.Lag = max(0, now.Sub(st.Oldest))
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int {
		return cmp.Or(cmp.Compare(b.Lag, a.Lag), strings.Compare(a.ID, b.ID))
	})
	return all
}

// lag is the longest wait of an endpoint that is switched on.
func (s *Sender) lag() time.Duration {
	for _, st := range s.Status() {
		if !st.Off {
			return st.Lag
		}
	}
	return 0
}

// aside counts the events set aside.
func (s *Sender) aside() (n int) {
	for _, st := range s.Status() {
		n += st.Aside
	}
	return n
}

func (s *Sender) failing() (n int) {
	for _, st := range s.Status() {
		if st.Failures > 0 {
			n++
		}
	}
	return n
}
