package resolve

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"tlsrelay/policy/domain"
	"tlsrelay/relay"
	"tlsrelay/relay/cache"
)

// Options are the settings of a [Resolver]. Every zero field means its default.
type Options struct {
	// Server is host:port of the recursive resolver; default: the first of
	// /etc/resolv.conf.
	Server string
	// DNSSEC is when its AD bit is believed: DNSSECAuto (the default),
	// DNSSECTrust or DNSSECOff.
	DNSSEC string
	Port   int // that hosts are dialled at; default 25
	// Routes name a host:port for a domain, an address literal in brackets or
	// "*", instead of MX look-up.
	Routes map[string]string
	// AllowPrivate lets MX records and literals lead to loopback and private
	// addresses. A configured route always may.
	AllowPrivate bool

	// Hostname is ours. An MX of that name is this relay, if a submission
	// listener of ours is at Port, or Listening is empty.
	Hostname string
	// Listening are the addresses our submission listens at, for the
	// detection of mail loops; an unspecified one stands for all of this machine.
	Listening []netip.AddrPort
	// SourceAddresses are dialled from: only their families are of use.
	SourceAddresses []netip.Addr

	// Timeout bounds one question, all tries together; default 10 s.
	Timeout time.Duration
	// Unwell tells hosts to try after others of the same preference; nil: none.
	Unwell func(host string) bool
}

// Bounds of the caches. A route is about a kilobyte.
const (
	cachedRoutes  = 20_000
	cachedAnswers = 50_000
)

// Resolver finds the hosts of destinations. Its methods are safe for
// concurrent use.
type Resolver struct {
	o       Options
	self    string // Hostname as a canonical name
	listed  map[string]smartHost
	asker   asker
	trust   *trust
	net     atomic.Pointer[network]
	answers *cache.Cache[question, answer]
	routes  *cache.Cache[string, composed]
	asking  singleflight.Group // by question
	routing singleflight.Group // by destination
	metrics *metrics
	now     func() time.Time
}

// New makes a resolver; it starts nothing. reg may be nil. The error names
// the option that is impossible.
func New(o Options, reg prometheus.Registerer) (*Resolver, error) {
	o.Port = cmp.Or(o.Port, 25)
	o.DNSSEC = cmp.Or(o.DNSSEC, DNSSECAuto)
	o.Timeout = cmp.Or(o.Timeout, 10*time.Second)
	if !slices.Contains([]string{DNSSECAuto, DNSSECTrust, DNSSECOff}, o.DNSSEC) {
		return nil, fmt.Errorf("dnssec: %q is none of auto, trust, off", o.DNSSEC)
	}
	server, err := serverAddress(o.Server)
	if err != nil {
		return nil, err
	}
	listed, err := parseRoutes(o.Routes)
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(reg)
	if err != nil {
		return nil, err
	}
	r := &Resolver{
		o: o, listed: listed, trust: newTrust(o.DNSSEC, server), metrics: m, now: time.Now,
		answers: cache.New[question, answer](cachedAnswers),
		routes:  cache.New[string, composed](cachedRoutes),
	}
	if name, err := domain.Parse(o.Hostname); err == nil {
		r.self = name.String()
	}
	r.asker = &client{server: server, dnssec: r.trust.wants(), timeout: o.Timeout}
	r.net.Store(lookAround(o.SourceAddresses))
	m.validating.Set(float64(rank(o.DNSSEC == DNSSECTrust)))
	return r, nil
}

// serverAddress completes the resolver's address.
func serverAddress(s string) (string, error) {
	if s == "" {
		c, err := dns.ClientConfigFromFile("/etc/resolv.conf")
		if err != nil {
			return "", fmt.Errorf("resolver: %w", err)
		}
		if len(c.Servers) == 0 {
			return "", errors.New("resolver: /etc/resolv.conf names none")
		}
		return net.JoinHostPort(c.Servers[0], c.Port), nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return "", fmt.Errorf("resolver: %w", err)
	}
	return s, nil
}

// Run repeats the self-test of the resolver's DNSSEC validation, looks at
// this machine's addresses again, and sweeps the caches, until ctx ends.
func (r *Resolver) Run(ctx context.Context) error {
	r.believed(ctx)
	test := time.NewTimer(r.untilTest())
	defer test.Stop()
	sweep := time.NewTicker(time.Minute)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-sweep.C:
			r.answers.Sweep(r.now())
			r.routes.Sweep(r.now())
			r.lookAgain()
		case <-test.C:
			wait := testEvery
			if r.trust.mode == DNSSECAuto && r.trust.wants() && r.selfTest(ctx) == unknown {
				wait = testSoon
			}
			test.Reset(wait)
		}
	}
}

// lookAgain looks at this machine's addresses again. When they changed no route
// composed for the former ones is used any more, for it leaves out what could not
// be dialled.
func (r *Resolver) lookAgain() {
	if now := lookAround(r.o.SourceAddresses); !r.net.Load().equal(now) {
		r.net.Store(now)
	}
}

func (r *Resolver) untilTest() time.Duration {
	if r.trust.proven.Load() {
		return testEvery
	}
	return testSoon
}

// Route gives the hosts of a destination, as [relay.Address.Destination]
// writes it. A failure concerns the whole destination; beside it, Route.Hosts
// are the hosts that were found and why none can be dialled. What is returned
// is shared: do not change it.
func (r *Resolver) Route(ctx context.Context, destination string) (Route, *relay.Failure) {
	c, ok := r.routes.Get(destination, r.now())
	if ok && r.stands(c) {
		r.metrics.routeHits.Inc()
	} else if c, ok = r.composeOnce(ctx, destination); !ok {
		return Route{}, dnsTrouble.destination("look-up of " + destination + " cut short")
	}
	if c.failure != nil {
		f := *c.failure
		return c.route, &f
	}
	route := c.route
	route.Hosts = reshuffle(route.Hosts, r.o.Unwell)
	return route, nil
}

// stands reports whether a cached route was composed as it would be now.
func (r *Resolver) stands(c composed) bool {
	return c.believed == r.trust.current() && c.net == r.net.Load() && (!c.route.Unproven || r.trust.unproven())
}

// composeOnce composes the route, once for all who wait for it.
func (r *Resolver) composeOnce(ctx context.Context, destination string) (composed, bool) {
	ch := r.routing.DoChan(destination, func() (any, error) {
		ctx := context.WithoutCancel(ctx)
		c := r.compose(ctx, destination)
		r.routes.Put(destination, c, r.now(), c.expires)
		return c, nil
	})
	select {
	case done := <-ch:
		return done.Val.(composed), true
	case <-ctx.Done():
		return composed{}, false
	}
}

// smartHost is a configured route.
type smartHost struct {
	name domain.Name // zero for an address
	addr netip.Addr
	port uint16
}

// parseRoutes reads Options.Routes, keyed as destinations are.
func parseRoutes(routes map[string]string) (map[string]smartHost, error) {
	listed := make(map[string]smartHost, len(routes))
	var errs []error
	for key, target := range routes {
		if key != "*" && !strings.HasPrefix(key, "[") {
			name, err := domain.Parse(key)
			if err != nil {
				errs = append(errs, fmt.Errorf("routes: %q: %w", key, err))
				continue
			}
			key = name.String()
		}
		h, err := parseSmartHost(target)
		if err != nil {
			errs = append(errs, fmt.Errorf("routes: %s: %w", key, err))
			continue
		}
		listed[key] = h
	}
	return listed, errors.Join(errs...)
}

func parseSmartHost(target string) (h smartHost, err error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return h, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return h, fmt.Errorf("%q is no port", port)
	}
	h.port = uint16(n)
	if addr, err := netip.ParseAddr(host); err == nil {
		h.addr = addr.Unmap()
		return h, nil
	}
	h.name, err = domain.Parse(host)
	return h, err
}
