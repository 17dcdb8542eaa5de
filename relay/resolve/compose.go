package resolve

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"tlsrelay/policy"
	"tlsrelay/policy/domain"
	"tlsrelay/relay"
)

// composed is a route as the cache keeps it.
type composed struct {
	route    Route
	failure  *relay.Failure
	believed bool // the resolver's AD bit was
	net      *network
	expires  time.Time
}

// composing is a route in the making.
type composing struct {
	*Resolver
	net      *network
	believed bool // the AD bit is
	unproven bool // whether it may be is not known

	mu      sync.Mutex
	expires time.Time // the earliest of all that was learned
}

// compose finds the hosts of a destination.
func (r *Resolver) compose(ctx context.Context, destination string) composed {
	believed, unproven := r.believed(ctx)
	c := &composing{Resolver: r, net: r.net.Load(), believed: believed, unproven: unproven, expires: r.now().Add(maxTTL)}
	out := c.destination(ctx, destination)
	out.believed, out.net, out.expires = believed, c.net, c.expires
	return out
}

// look is lookup, minding how long the answer is good.
func (c *composing) look(ctx context.Context, name string, qtype uint16) answer {
	a := c.lookup(ctx, question{dns.CanonicalName(name), qtype})
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.expires.Before(c.expires) {
		c.expires = a.expires
	}
	return a
}

func (c *composing) destination(ctx context.Context, destination string) composed {
	if h, ok := c.configured(destination); ok {
		return c.smartHost(ctx, h)
	}
	if literal, ok := strings.CutPrefix(destination, "["); ok {
		return c.literal(strings.TrimSuffix(literal, "]"))
	}
	name, err := domain.Parse(destination)
	if err != nil {
		// Submission lets no such address in.
		return composed{failure: internal.destination("not a destination: " + destination)}
	}
	out := c.domain(ctx, name)
	out.route.Unproven = c.unproven
	return out
}

func (c *composing) configured(destination string) (smartHost, bool) {
	h, ok := c.listed[destination]
	if !ok {
		h, ok = c.listed["*"]
	}
	return h, ok
}

// smartHost makes the route to a host that the operator named. Its name is
// what its certificate must carry, never the recipient's domain: the operator chose
// the host, not DNS. Its address may be private, for no stranger named it.
func (c *composing) smartHost(ctx context.Context, h smartHost) composed {
	if h.addr.IsValid() {
		host := literalHost(netip.AddrPortFrom(h.addr, h.port))
		host.RouteOverride = true
		return composed{route: Route{Hosts: []Host{host}}}
	}
	host := Host{
		Name: h.name.String(), SNI: h.name.String(), RouteOverride: true,
		Facts: policy.Facts{Host: h.name, MX: policy.MXUnsigned},
	}
	p := c.place(ctx, host.Name, h.port, true)
	host.Addrs, host.Failure = p.at, p.failure
	return conclude(Route{Hosts: []Host{host}}, nil)
}

// literal makes the route of user@[192.0.2.1].
func (c *composing) literal(text string) composed {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return composed{failure: internal.destination("not an address literal: [" + text + "]")}
	}
	at := netip.AddrPortFrom(addr.Unmap(), uint16(c.o.Port))
	switch {
	case !dialable(at.Addr(), c.o.AllowPrivate):
		return composed{failure: privateOnly.destination("[" + text + "] is a private address")}
	case c.net.ours(at, c.o.Listening):
		return composed{failure: mailLoop.destination("[" + text + "] is this relay")}
	}
	return composed{route: Route{Hosts: []Host{literalHost(at)}}}
}

func literalHost(at netip.AddrPort) Host {
	text := at.Addr().String()
	return Host{
		Name:  "[" + text + "]",
		Facts: policy.Facts{Literal: text, MX: policy.MXUnsigned},
		Addrs: []netip.AddrPort{at},
	}
}

// domain goes by MX records, or without any by the domain's own addresses
// (RFC 5321 §5.1).
func (c *composing) domain(ctx context.Context, name domain.Name) composed {
	a := c.look(ctx, name.String(), dns.TypeMX)
	switch a.outcome {
	case found:
		return c.exchangers(ctx, name, a)
	case noData:
		return c.implicit(ctx, name, a)
	case noName:
		return composed{route: Route{Recipient: name}, failure: noSuchName.destination("no such domain: " + name.String())}
	}
	return composed{route: Route{Recipient: name}, failure: dnsTrouble.destination("MX of " + name.String() + ": " + a.detail)}
}

// implicit is the domain as its own host.
func (c *composing) implicit(ctx context.Context, name domain.Name, a answer) composed {
	h := c.host(name.String(), name, a)
	p := c.place(ctx, h.Name, uint16(c.o.Port), c.o.AllowPrivate)
	switch {
	case p.own || c.isSelf(h.Name):
		return composed{route: Route{Recipient: name}, failure: mailLoop.destination(name.String() + " is this relay")}
	case p.absent:
		return composed{route: Route{Recipient: name}, failure: noMailHost.destination(name.String() + " has neither a mail host nor an address")}
	}
	h.Addrs, h.Failure = p.at, p.failure
	return conclude(Route{Recipient: name, Hosts: []Host{h}}, nil)
}

// exchangers looks at every host of an MX set. Those at and behind our own
// place are not for us to send to (RFC 5321 §5.1).
func (c *composing) exchangers(ctx context.Context, name domain.Name, a answer) composed {
	ordered, null := exchangers(a.mx)
	if null {
		return composed{route: Route{Recipient: name}, failure: nullMX.destination(name.String() + " does not accept mail")}
	}
	near := ordered[:min(len(ordered), maxHosts)]
	hosts := make([]Host, len(near))
	own := make([]bool, len(near))
	var wg sync.WaitGroup
	for i, m := range near {
		wg.Go(func() {
			h := c.host(m.host, name, a)
			if h.Failure == nil {
				p := c.place(ctx, h.Name, uint16(c.o.Port), c.o.AllowPrivate)
				h.Addrs, h.Failure, own[i] = p.at, p.failure, p.own || c.isSelf(h.Name)
			}
			hosts[i] = h
		})
	}
	wg.Wait()
	for i := range near {
		if !own[i] {
			continue
		}
		for i > 0 && near[i-1].preference == near[i].preference {
			i--
		}
		if i == 0 {
			return composed{route: Route{Recipient: name}, failure: mailLoop.destination("the best mail host of " + name.String() + " is this relay")}
		}
		return conclude(Route{Recipient: name, Hosts: hosts[:i]}, near[:i])
	}
	hosts = c.noteUntried(hosts, ordered[len(near):], name, a)
	return conclude(Route{Recipient: name, Hosts: hosts}, ordered[:len(hosts)])
}

// noteUntried adds the hosts beyond the bound, without addresses.
func (c *composing) noteUntried(hosts []Host, rest []mx, name domain.Name, a answer) []Host {
	for _, m := range rest[:min(len(rest), maxNoted-len(hosts))] {
		h := c.host(m.host, name, a)
		if h.Failure == nil {
			h.Failure = untried.host("not tried: more than ten hosts")
		}
		hosts = append(hosts, h)
	}
	return hosts
}

// host gives what is known of a host from the record that named it. The name in
// the record is the one to verify, wherever an alias leads: RFC 5321 §5.1 forbids
// aliases there, and the target of one is as forgeable as the alias.
func (c *composing) host(text string, recipient domain.Name, from answer) Host {
	h := Host{Name: text, Facts: policy.Facts{Recipient: recipient, MX: policy.MXUnsigned}}
	if c.believed && from.authentic {
		h.Facts.MX = policy.MXDNSSEC
	}
	name, err := domain.Parse(text)
	if err != nil {
		// Most often an address in place of a name, which RFC 5321 §5.1 forbids.
		h.Failure = noAddress.host("the MX record holds no host name")
		return h
	}
	h.Name, h.SNI, h.Facts.Host = name.String(), name.String(), name
	return h
}

// isSelf reports whether the name is ours and so is the listener behind it.
func (c *composing) isSelf(host string) bool {
	if c.self == "" || host != c.self {
		return false
	}
	for _, l := range c.o.Listening {
		if int(l.Port()) == c.o.Port {
			return true
		}
	}
	return len(c.o.Listening) == 0
}

// conclude bounds the addresses of a route and finds out whether any is left.
func conclude(route Route, order []mx) composed {
	left, usable := maxAddresses, 0
	for i := range route.Hosts {
		h := &route.Hosts[i]
		if h.Failure == nil && left == 0 {
			h.Addrs, h.Failure = nil, untried.host("not tried: more than twenty addresses")
		}
		h.Addrs = h.Addrs[:min(len(h.Addrs), left)]
		left -= len(h.Addrs)
		usable += len(h.Addrs)
	}
	c := composed{route: route}
	if usable == 0 {
		c.failure = summary(route.Hosts)
		return c
	}
	for i, m := range order {
		c.route.Hosts[i].Preference = m.preference
	}
	return c
}

// summary is the failure of a destination none of whose hosts can be dialled:
// trouble in DNS first, for it is the most likely to pass.
func summary(hosts []Host) *relay.Failure {
	pick := hosts[0].Failure
	for _, h := range hosts {
		if h.Failure.Reason == dnsTrouble.reason {
			pick = h.Failure
			break
		}
	}
	f := *pick
	f.Reach = relay.ReachDestination
	f.Reply.Text = "no usable mail host: " + f.Reply.Text
	return &f
}
