package resolve

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// The values of the setting delivery.dnssec: believe the AD bit of a resolver on
// loopback that passes a test, of any resolver, or of none.
const (
	DNSSECAuto  = "auto"
	DNSSECTrust = "trust"
	DNSSECOff   = "off"
)

// trust is whether the resolver's AD bit is believed.
type trust struct {
	mode     string
	loopback bool
	first    sync.Once
	proven   atomic.Bool
	tested   atomic.Bool // proven is the verdict of a test
}

func newTrust(mode, server string) *trust {
	ap, err := netip.ParseAddrPort(server)
	return &trust{mode: mode, loopback: err == nil && ap.Addr().Unmap().IsLoopback()}
}

// wants reports whether to ask for AD at all.
func (t *trust) wants() bool {
	return t.mode == DNSSECTrust || t.mode == DNSSECAuto && t.loopback
}

// current is the verdict as it stands.
func (t *trust) current() bool {
	return t.mode == DNSSECTrust || t.wants() && t.proven.Load()
}

// unproven reports whether there is no verdict yet where there is to be one.
func (t *trust) unproven() bool {
	return t.mode == DNSSECAuto && t.loopback && !t.tested.Load()
}

// believed is current, but the first call waits for the first
// self-test: a message that demands an authentic MX must not be refused for
// being early. unproven is whether that was not answered, nor any after it.
func (r *Resolver) believed(ctx context.Context) (believed, unproven bool) {
	if r.trust.mode == DNSSECAuto && r.trust.loopback {
		r.trust.first.Do(func() { r.selfTest(context.WithoutCancel(ctx)) })
	}
	unproven = r.trust.unproven() // before current, which a test may change
	return r.trust.current(), unproven
}

// DNSSEC says whether the resolver's word on signatures is believed, "on", or why it
// is "off".
func (r *Resolver) DNSSEC() string {
	t := r.trust
	switch {
	case t.current():
		return "on"
	case t.mode == DNSSECOff:
		return "off: delivery.dnssec says so"
	case !t.loopback:
		return "off: the resolver is not on loopback, and delivery.dnssec does not vouch for it"
	case t.unproven():
		return "off: the resolver has not answered the test of it"
	}
	return "off: the resolver does not validate"
}

// verdict is what a self-test found.
type verdict int

const (
	unknown verdict = iota // no answer: nothing learned
	validates
	doesNot
)

// judgeResolver reads the two answers of the self-test: the root must be
// authentic, and a name that is known to be bogus must fail. The second may
// stay unanswered, for a network may not lead there.
func judgeResolver(root, bogus answer) verdict {
	switch {
	case root.trouble():
		return unknown
	case !root.authentic:
		return doesNot
	case bogus.outcome == found || bogus.outcome == noData || bogus.outcome == noName:
		return doesNot
	}
	return validates
}

// selfTest asks both questions and remembers the verdict. Cached routes made
// under another one no longer count.
func (r *Resolver) selfTest(ctx context.Context) verdict {
	ctx, cancel := context.WithTimeout(ctx, 2*r.o.Timeout)
	defer cancel()
	root := r.ask(ctx, question{".", dns.TypeSOA})
	var bogus answer
	if !root.trouble() && root.authentic {
		bogus = r.ask(ctx, question{"dnssec-failed.org.", dns.TypeA})
	}
	v := judgeResolver(root, bogus)
	if v == unknown {
		return v
	}
	r.trust.proven.Store(v == validates)
	r.trust.tested.Store(true)
	r.metrics.validating.Set(float64(rank(v == validates)))
	return v
}

// The self-test is repeated, sooner while the resolver does not answer it.
const (
	testEvery = 10 * time.Minute
	testSoon  = 30 * time.Second
)
