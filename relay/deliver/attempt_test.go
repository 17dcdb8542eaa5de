package deliver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"tlsrelay/events"
	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/relaytest"
	"tlsrelay/relay/resolve"
)

// Scripts by the evidence they give under a demand.
var (
	violates     = relaytest.Script{NoTLS: true}
	inconclusive = relaytest.Script{StartTLS: relaytest.Reply{Code: 454, Text: "4.7.0 not now"}}
	otherwise    = relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Close}} // inconclusive, for another reason
	unreachable  = relaytest.Script{Greeting: relaytest.Reply{Code: 421, Text: "busy"}}
	suspicious   = relaytest.Script{Inject: "250 hello\r\n"}
	complies     = relaytest.Script{}
)

// TestHostSets is the table of what several hosts come to (policy/conclude.go), over passes: each pass is
// what the hosts do, then how long until the next.
func TestHostSets(t *testing.T) {
	type pass struct {
		hosts []relaytest.Script
		fate  string
		then  time.Duration
	}
	hosts := func(s ...relaytest.Script) []relaytest.Script { return s }
	const confirm = 16 * time.Minute
	reject := relaytest.Script{Rcpt: relaytest.Reply{Code: 550, Text: "5.1.1 who"}}
	grey := relaytest.Script{Rcpt: relaytest.Reply{Code: 450, Text: "4.2.0 grey"}}
	for name, passes := range map[string][]pass{
		"all c":                     {{hosts(violates, violates), "block", 0}},
		"c then ok":                 {{hosts(violates, complies), "tls", 0}},
		"x then ok":                 {{hosts(suspicious, complies), "tls", 0}},
		"u then ok":                 {{hosts(unreachable, complies), "tls", 0}},
		"u then c":                  {{hosts(unreachable, violates), "defer", time.Hour}, {hosts(unreachable, violates), "defer", 23 * time.Hour}, {hosts(unreachable, violates), "block", 0}},
		"c then u, at window's end": {{hosts(violates, unreachable), "defer", 25 * time.Hour}, {hosts(unreachable, unreachable), "block", 0}},
		"c and i":                   {{hosts(violates, inconclusive), "defer", confirm}, {hosts(violates, inconclusive), "block", 0}},
		"c and i, too soon":         {{hosts(violates, inconclusive), "defer", time.Minute}, {hosts(violates, inconclusive), "defer", 0}},
		"c and i, other reason":     {{hosts(violates, inconclusive), "defer", confirm}, {hosts(violates, otherwise), "defer", 0}},
		"all i":                     {{hosts(inconclusive), "defer", confirm}, {hosts(inconclusive), "defer", confirm}, {hosts(inconclusive), "block", 0}},
		"all u":                     {{hosts(unreachable, unreachable), "defer", 48 * time.Hour}, {hosts(unreachable, unreachable), "defer", 0}},
		"x":                         {{hosts(suspicious), "defer", confirm}, {hosts(suspicious), "defer", confirm}, {hosts(suspicious), "defer", 24 * time.Hour}, {hosts(suspicious), "block", 0}},
		"c then compliant 5xx":      {{hosts(violates, reject), "bounce", 0}},
		"c then compliant 4xx":      {{hosts(violates, grey), "defer", 48 * time.Hour}, {hosts(violates, grey), "defer", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var h policy.History
			for i, p := range passes {
				w := relaytest.Start(t)
				var list []*relaytest.Host
				for n, s := range p.hosts {
					list = append(list, w.Host(t, fmt.Sprintf("mx%d.example.test", n+1), s))
				}
				job := jobTo(t, modeT)
				job.Delivery.History = h
				r := engine(t, w, routeTo(list...)).Deliver(context.Background(), job)
				if how(r) != p.fate {
					t.Fatalf("pass %d: %s, want %s (%+v)", i, how(r), p.fate, failureOf(r))
				}
				if phrase := strings.HasPrefix(failureOf(r).Reply.String(), events.TLSBlocked); phrase != (p.fate == "block") {
					t.Errorf("pass %d: %q", i, failureOf(r).Reply)
				}
				h = earlierBy(r.History, p.then)
			}
		})
	}
}

// earlierBy moves a history into the past.
func earlierBy(h policy.History, d time.Duration) policy.History {
	if h.Violated() {
		h.Since = h.Since.Add(-d)
	}
	seen := make(map[string]policy.Repeated)
	for k, v := range h.Seen {
		v.Last = v.Last.Add(-d)
		seen[k] = v
	}
	h.Seen = seen
	return h
}

// TestHold: on_violation defer never blocks by itself.
func TestHold(t *testing.T) {
	w := relaytest.Start(t)
	s := modeT
	s.Account.OnViolation = policy.Defer
	r := deliverOne(t, engine(t, w, routeTo(w.Host(t, "mx1.example.test", violates))), s, "defer")
	if f := failureOf(r); f.Status != "4.7.4" || f.Reason != events.StartTLSNotOffered || r.Feedback != relay.Neutral {
		t.Errorf("%+v", r)
	}
}

// TestUntriedHosts: the bounds on an attempt leave hosts untried, and an untried
// host may comply.
func TestUntriedHosts(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", violates)
	var route resolve.Route
	for i := range maxHosts + 1 {
		route.Hosts = append(route.Hosts, hostAt(fmt.Sprintf("mx%d.example.test", i), h.Addr()))
	}
	deliverOne(t, engine(t, w, route), modeT, "defer")
	if h.Connections() != maxHosts {
		t.Errorf("%d connections", h.Connections())
	}
	route.Hosts = route.Hosts[:maxHosts]
	deliverOne(t, engine(t, w, route), modeT, "block")

	h = w.Host(t, "mx1.example.test", violates)
	many := make([]netip.AddrPort, maxAddresses)
	for i := range many {
		many[i] = h.Addr()
	}
	route = resolve.Route{Hosts: []resolve.Host{hostAt("mx1.example.test", many...), hostAt("mx2.example.test", h.Addr())}}
	deliverOne(t, engine(t, w, route), modeT, "defer")
	if h.Connections() != maxAddresses {
		t.Errorf("%d connections", h.Connections())
	}
}

// TestAddresses: an unreachable address does not weaken what another of the
// same host proved; one without a route from here is no evidence at all.
func TestAddresses(t *testing.T) {
	w := relaytest.Start(t)
	bad, good := w.Host(t, "mx1.example.test", violates), w.Host(t, "mx1.example.test")
	dead := w.AddDeadHost("mx1.example.test")
	six := netip.MustParseAddrPort("[2001:db8::25]:25")
	one := func(addrs ...netip.AddrPort) resolve.Route {
		return resolve.Route{Hosts: []resolve.Host{hostAt("mx1.example.test", addrs...)}}
	}
	deliverOne(t, engine(t, w, one(dead, bad.Addr())), modeT, "block")
	deliverOne(t, engine(t, w, one(dead, bad.Addr(), good.Addr())), modeT, "tls")
	fourOnly := func(o *Options) { o.SourceAddresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
	r := deliverOne(t, engine(t, w, one(six, bad.Addr()), fourOnly), modeT, "block")
	if len(r.Attempt.Hosts) != 1 {
		t.Errorf("evidence %+v", r.Attempt.Hosts)
	}
	deliverOne(t, engine(t, w, one(six), fourOnly), modeT, "defer")
}

// TestHostWithoutAddress: what the resolver says of a host is its evidence.
func TestHostWithoutAddress(t *testing.T) {
	w := relaytest.Start(t)
	none := resolve.Host{Name: "mx1.example.test", Failure: &relay.Failure{
		Class: relay.Temporary, Reason: events.HostAddress, Status: "4.4.4", Reply: relay.Reply{Text: "no address"},
	}}
	r := deliverOne(t, engine(t, w, resolve.Route{Hosts: []resolve.Host{none}}), modeT, "defer")
	if f := failureOf(r); f.Reason != events.HostAddress || f.Status != "4.4.4" || f.Reply.Text != "no address" {
		t.Errorf("%+v", f)
	}
	h := w.Host(t, "mx2.example.test", violates)
	deliverOne(t, engine(t, w, resolve.Route{Hosts: []resolve.Host{none, hostAt("mx2.example.test", h.Addr())}}), modeT, "defer")
}

// TestRouteFailure: what routing says is what the recipients are told.
func TestRouteFailure(t *testing.T) {
	e := New(Options{}, router{failure: &relay.Failure{Class: relay.Permanent, Reason: events.NullMX, Status: "5.1.10"}}, nil, nil)
	if f := failureOf(e.Deliver(context.Background(), jobTo(t, modeT))); f.Reason != events.NullMX {
		t.Errorf("%+v", f)
	}
	if rep := e.Probe(context.Background(), "example.test", modeT); rep.Failure == nil || rep.Deliverable() {
		t.Errorf("%+v", rep)
	}
}

// TestWindowEndsWithoutRoute: the end of the policy window decides while DNS
// fails, for who still demands something.
func TestWindowEndsWithoutRoute(t *testing.T) {
	e := New(Options{}, router{failure: &relay.Failure{
		Class: relay.Temporary, Reach: relay.ReachDestination, Reason: events.DNSFail, Status: "4.4.3", Reply: relay.Reply{Text: "SERVFAIL"},
	}}, nil, nil)
	for _, c := range []struct {
		sender policy.Sender
		ends   time.Duration
		fate   string
		keeps  bool
	}{{modeT, -time.Hour, "block", true}, {modeT, time.Hour, "defer", true}, {modeO, -time.Hour, "defer", false}} {
		job := jobTo(t, c.sender)
		job.Delivery.History = policy.History{Since: time.Now().Add(-24 * time.Hour), Ends: time.Now().Add(c.ends)}
		if r := e.Deliver(context.Background(), job); how(r) != c.fate || r.History.Violated() != c.keeps {
			t.Errorf("%+v: %s, %+v", c, how(r), r.History)
		}
	}
}

// TestTLSBeforeClear: in mode O every host is offered TLS before any gets
// anything in clear after a failure, and a host that was tampered with gets
// nothing in clear at all.
func TestTLSBeforeClear(t *testing.T) {
	broken := relaytest.Script{TLS: relaytest.TLS{Alert: 80}}
	for name, c := range map[string]struct {
		first, second relaytest.Script
		fate          string
		clear         [2]bool
	}{
		"second has TLS":     {broken, complies, "tls", [2]bool{false, false}},
		"both broken":        {broken, broken, "clear", [2]bool{true, false}},
		"second has no TLS":  {broken, violates, "clear", [2]bool{false, true}},
		"first injects":      {suspicious, broken, "clear", [2]bool{false, true}},
		"both inject":        {suspicious, suspicious, "defer", [2]bool{false, false}},
		"first downgraded":   {relaytest.Script{TLS: relaytest.TLS{Downgrade: true}}, unreachable, "defer", [2]bool{false, false}},
		"STARTTLS says 421":  {relaytest.Script{StartTLS: relaytest.Reply{Code: 421, Text: "bye"}}, unreachable, "defer", [2]bool{false, false}},
		"first has no TLS":   {violates, complies, "clear", [2]bool{true, false}},
		"drops in mid-TLS":   {relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Close, Times: 1}, Keywords: []string{"SIZE"}}, complies, "tls", [2]bool{false, false}},
		"drops in every TLS": {relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Close}, Keywords: []string{"SIZE"}}, unreachable, "defer", [2]bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			a, b := w.Host(t, "mx1.example.test", c.first), w.Host(t, "mx2.example.test", c.second)
			deliverOne(t, engine(t, w, routeTo(a, b)), modeO, c.fate)
			if got := [2]bool{a.LeakedInClear(), b.LeakedInClear()}; got != c.clear {
				t.Errorf("in clear: %v, want %v", got, c.clear)
			}
		})
	}
}

// TestInjectedAddress: an address that was tampered with gets nothing in
// clear under another name either.
func TestInjectedAddress(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", suspicious, relaytest.Script{TLS: relaytest.TLS{Alert: 80}})
	route := resolve.Route{Hosts: []resolve.Host{hostAt("mx1.example.test", h.Addr()), hostAt("mx2.example.test", h.Addr())}}
	deliverOne(t, engine(t, w, route), modeO, "defer")
	if h.LeakedInClear() {
		t.Error("sent in clear")
	}
}

// TestCompatMemory: an address that needed the compat hello gets it at once
// the next time, until that fails.
func TestCompatMemory(t *testing.T) {
	w := relaytest.Start(t)
	picky := relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Close, HelloOver: 1000}, KeywordsInTLS: []string{"LIMITS MAILMAX=1"}}
	newOnly := relaytest.Script{TLS: relaytest.TLS{MinVersion: 0x0304}}
	h := w.Host(t, "mx1.example.test", picky)
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeT, "tls")
	if h.Connections() != 2 {
		t.Fatalf("%d connections", h.Connections())
	}
	deliverOne(t, e, modeT, "tls")
	if h.Connections() != 3 {
		t.Errorf("%d connections: not remembered", h.Connections())
	}
	for _, s := range h.Sessions()[1:] {
		if s.Hello.Size > 600 {
			t.Errorf("compat hello of %d octets", s.Hello.Size)
		}
	}
	// The host was renewed and now speaks 1.3 alone: the compat hello stops at
	// 1.2, which must not be held against the host.
	if err := h.SetScript(newOnly); err != nil {
		t.Fatal(err)
	}
	if r := deliverOne(t, e, modeT, "tls"); r.Outcomes[0].Session.TLSVersion != "1.3" {
		t.Errorf("%+v", r.Outcomes[0].Session)
	}
}

// TestCompatProvesLittle: the compat hello offers less than the first one. Its
// refusal does not make a passing failure of the first conclusive.
func TestCompatProvesLittle(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Close}}, relaytest.Script{TLS: relaytest.TLS{MinVersion: 0x0304}})
	r := deliverOne(t, engine(t, w, routeTo(h)), modeT, "defer")
	if failureOf(r).Reason != events.TLSClosed {
		t.Errorf("%+v", failureOf(r))
	}
}

// TestCompatAsksForLess: a host that speaks 1.3 alone and refuses the first
// hello for another reason is not blamed for its version, and not at all where
// it has one that is high enough.
func TestCompatAsksForLess(t *testing.T) {
	refuses, newOnly := relaytest.Script{TLS: relaytest.TLS{Alert: 40}}, relaytest.Script{TLS: relaytest.TLS{MinVersion: 0x0304}}
	for fate, scripts := range map[string][]relaytest.Script{
		"block": {refuses, newOnly, refuses},
		"defer": {refuses, newOnly},
	} {
		w := relaytest.Start(t)
		h := w.Host(t, "mx1.example.test", scripts...)
		r := deliverOne(t, engine(t, w, routeTo(h)), modeT, fate)
		if f := failureOf(r); f.Reason != events.TLSHandshake || f.Status[1:] != ".7.5" {
			t.Errorf("%s: %+v", fate, f)
		}
	}
}

// TestNotAskedAbout: recipients that a good host had no more room for are not
// told of a failure of TLS.
func TestNotAskedAbout(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test", relaytest.Script{KeywordsInTLS: []string{"LIMITS MAILMAX=1 RCPTMAX=1"}}, unreachable)
	r := engine(t, w, routeTo(h)).Deliver(context.Background(), jobTo(t, modeT, "a@example.test", "b@example.test"))
	if r.Outcomes[0].Failure != nil || r.Outcomes[1].Failure == nil {
		t.Fatalf("%+v", r.Outcomes)
	}
	if f := r.Outcomes[1].Failure; f.Class != relay.Temporary || f.Status != "4.4.2" || f.Reason != events.SessionLost {
		t.Errorf("%+v", f)
	}
}

// TestResumption: sessions are resumed, checked anew each time, and not
// shared between profiles.
func TestResumption(t *testing.T) {
	w := relaytest.Start(t)
	script := relaytest.Script{KeywordsInTLS: []string{"LIMITS MAILMAX=1"}, TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"other.test"}}}}
	h := w.Host(t, "mx1.example.test", script)
	e := engine(t, w, routeTo(h))
	deliverOne(t, e, modeT, "tls")
	r := deliverOne(t, e, modeT, "tls")
	if s := r.Attempt.Hosts[0].TLS; h.Resumed() != 1 || !s.Resumed || !slices.Contains(s.Cert.Faults, events.CertName) {
		t.Errorf("%d resumed, %+v", h.Resumed(), s)
	}
	deliverOne(t, e, modeV, "block") // T and V share a profile: resumed, and judged all the same
	deliverOne(t, e, modeO, "tls")
	if h.Resumed() != 2 {
		t.Errorf("%d resumed", h.Resumed())
	}
}

// TestRequireTLS is column RT: REQUIRETLS needs a valid certificate, an
// authentic MX and the keyword inside TLS.
func TestRequireTLS(t *testing.T) {
	listed := relaytest.Script{KeywordsInTLS: []string{"PIPELINING", "REQUIRETLS"}}
	for name, c := range map[string]struct {
		script  relaytest.Script
		mx      policy.MXAuth
		fate    string
		reason  events.Reason
		status  string
		relaxed bool
	}{
		"met":                 {listed, policy.MXDNSSEC, "tls", "", "", false},
		"unsigned MX":         {listed, policy.MXUnsigned, "block", events.MXUnauthenticated, "5.7.5", false},
		"keyword missing":     {relaytest.Script{}, policy.MXDNSSEC, "block", events.RequireTLSUnsupported, "5.7.30", false},
		"keyword missing, ok": {relaytest.Script{}, policy.MXDNSSEC, "tls", "", "", true},
		"keyword before TLS":  {relaytest.Script{Keywords: []string{"REQUIRETLS"}, KeywordsInTLS: []string{"SIZE"}}, policy.MXDNSSEC, "block", events.RequireTLSUnsupported, "5.7.30", false},
		"A4":                  {relaytest.Script{NoTLS: true}, policy.MXDNSSEC, "block", events.StartTLSNotOffered, "5.7.10", false},
		"B6":                  {otherwise, policy.MXDNSSEC, "block", events.TLSClosed, "5.7.10", false},
		"C7":                  {relaytest.Script{KeywordsInTLS: listed.KeywordsInTLS, TLS: relaytest.TLS{Cert: &relaytest.Cert{Names: []string{"other.test"}}}}, policy.MXDNSSEC, "block", events.CertName, "5.7.5", false},
		"A1":                  {unreachable, policy.MXDNSSEC, "defer", events.GreetingFail, "4.4.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			h := w.Host(t, "mx1.example.test", c.script)
			route := routeTo(h)
			route.Hosts[0].Facts.MX = c.mx
			job := jobTo(t, policy.Sender{Account: policy.Settings{RelaxedRequireTLS: c.relaxed}})
			job.Message.RequireTLS = true
			r := engine(t, w, route).Deliver(context.Background(), job)
			if f := failureOf(r); how(r) != c.fate || f.Reason != c.reason || f.Status != c.status {
				t.Errorf("%s %+v", how(r), f)
			}
			if h.LeakedInClear() {
				t.Error("sent in clear")
			}
			if m := h.Messages(); len(m) == 1 && slices.Contains(m[0].MailParams, "REQUIRETLS") != (name == "met") {
				t.Errorf("parameters %v", m[0].MailParams)
			}
		})
	}
}

// endWhen ends a context once cond holds of a host.
func endWhen(h *relaytest.Host, cond func() bool) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		wait, done := context.WithTimeout(context.Background(), relaytest.Patience)
		defer done()
		h.WaitFor(wait, cond)
		cancel()
	}()
	return ctx
}

// TestInterrupted: stopping in mid-attempt is nobody's fault, whether all of
// it is to stop or only what has not come to MAIL.
func TestInterrupted(t *testing.T) {
	for _, all := range []bool{true, false} {
		w := relaytest.Start(t)
		h := w.Host(t, "mx1.example.test", relaytest.Script{EHLO: relaytest.Reply{Do: relaytest.Silence}})
		e := engine(t, w, routeTo(h))
		job := jobTo(t, modeT)
		job.Delivery.History = policy.History{Since: time.Now().Add(-48 * time.Hour)}
		ctx, ends := context.Background(), endWhen(h, func() bool { return h.Open() == 1 })
		if all {
			ctx = ends
		} else {
			job.Opening = ends
		}
		r := e.Deliver(ctx, job)
		f := failureOf(r)
		if f.Class != relay.Temporary || f.Reason != events.Internal || len(r.Attempt.Hosts) != 0 || r.Feedback != relay.Neutral || !r.Cut {
			t.Errorf("%+v", r)
		}
		if !r.History.Since.Equal(job.Delivery.History.Since) {
			t.Error("the history was lost")
		}
	}
}

// lookingUp is a router that finds nothing until it is told to stop.
type lookingUp struct{ begun chan struct{} }

func (l lookingUp) Route(ctx context.Context, _ string) (resolve.Route, *relay.Failure) {
	close(l.begun)
	<-ctx.Done()
	return resolve.Route{}, &relay.Failure{Class: relay.Temporary, Reach: relay.ReachDestination, Reason: events.DNSFail, Status: "4.4.3"}
}

// TestInterruptedLookUp: an attempt that has to end does not wait for DNS.
func TestInterruptedLookUp(t *testing.T) {
	for _, all := range []bool{true, false} { // has Opening another end, or ctx?
		l := lookingUp{make(chan struct{})}
		e := engine(t, relaytest.Start(t), resolve.Route{})
		e.router = l
		ctx, cancel := context.WithTimeout(context.Background(), relaytest.Patience)
		defer cancel()
		ends, end := context.WithCancel(ctx)
		job := jobTo(t, modeT)
		if all {
			job.Opening, ctx = ctx, ends
		} else {
			job.Opening = ends
		}
		go func() { <-l.begun; end() }()
		if r := e.Deliver(ctx, job); !r.Cut || how(r) != "defer" {
			t.Errorf("%+v", r)
		}
		if !all && ctx.Err() != nil {
			t.Error("it waited for DNS")
		}
	}
}

// TestUnprovenResolver: what our own resolver cannot tell yet is not held
// against a destination, and keeps nobody who does not ask for it.
func TestUnprovenResolver(t *testing.T) {
	w := relaytest.Start(t)
	route := routeTo(w.Host(t, "mx1.example.test"))
	route.Unproven = true
	e := engine(t, w, route)
	job := jobTo(t, modeV)
	job.Message.RequireTLS = true
	r := e.Deliver(context.Background(), job)
	if f := failureOf(r); how(r) != "defer" || f.Status != "4.4.3" || r.Attempt.Ruling != policy.Unreached || r.History.Violated() {
		t.Errorf("%s: %+v", how(r), r)
	}
	deliverOne(t, e, modeV, "tls")
	if rep := e.Probe(context.Background(), "example.test", policy.Sender{RequireTLS: true}); rep.Deliverable() || rep.Failure.Class != relay.Temporary {
		t.Errorf("%+v", rep)
	}
}

// TestDemandsChange: an attempt that comes to MAIL late asks whether its demands
// still stand, and hands nothing over where they do not.
func TestDemandsChange(t *testing.T) {
	slow := relaytest.Script{NoTLS: true, Greeting: relaytest.Reply{Delay: demandsHold + 100*time.Millisecond}}
	for _, changed := range []bool{false, true} {
		w := relaytest.Start(t)
		first, second := w.Host(t, "mx1.example.test", slow), w.Host(t, "mx2.example.test")
		job := jobTo(t, modeO)
		asked := 0
		job.Changed = func(*Job) bool { asked++; return changed }
		e := engine(t, w, routeTo(first, second))
		r := e.Deliver(context.Background(), job)
		if r.Changed != changed || r.Cut != changed || asked == 0 || (how(r) == "defer") != changed {
			t.Errorf("changed %v: %s, asked %d times: %+v", changed, how(r), asked, r)
		}
		if changed && (first.LeakedInClear() || mailed(first)() || second.Connections() > 0) {
			t.Errorf("changed, and yet: %q, %d connections to the next host", first.ClearCommands(), second.Connections())
		}
	}
	w := relaytest.Start(t)
	job, begun := jobTo(t, modeO), time.Now()
	job.Changed = func(*Job) bool {
		if time.Since(begun) < demandsHold {
			t.Error("a quick attempt asked")
		}
		return false
	}
	if r := engine(t, w, routeTo(w.Host(t, "mx1.example.test"))).Deliver(context.Background(), job); how(r) != "tls" {
		t.Errorf("%+v", r)
	}
}

// TestDemandsChangeWhileWaiting: whatever an attempt waits for, a change of the
// demands ends it within a second, as long as the end of content is not out. What is
// on its way by then counts.
func TestDemandsChangeWhileWaiting(t *testing.T) {
	late := relaytest.Reply{Delay: time.Minute}
	stepwise, chunks := []string{"SIZE"}, []string{"CHUNKING"}
	big := body(strings.Repeat("A line of a body that a host takes its time for.\r\n", 1<<18))
	for name, c := range map[string]struct {
		script relaytest.Script
		body   body
		pooled bool // the session has carried a message before
		hosts  int  // hosts with that script
		goesOn bool // the end of content is out
		alone  bool // there is no other host
	}{
		"greeting":        {script: relaytest.Script{NoTLS: true, Greeting: late}},
		"EHLO":            {script: relaytest.Script{NoTLS: true, EHLO: late}},
		"STARTTLS":        {script: relaytest.Script{StartTLS: late}},
		"handshake":       {script: relaytest.Script{TLS: relaytest.TLS{Do: relaytest.Silence}}},
		"EHLO in TLS":     {script: relaytest.Script{EHLOInTLS: late}},
		"MAIL":            {script: relaytest.Script{NoTLS: true, Mail: late}},
		"RCPT":            {script: relaytest.Script{NoTLS: true, Rcpt: late}},
		"MAIL stepwise":   {script: relaytest.Script{NoTLS: true, Keywords: stepwise, Mail: late}},
		"354":             {script: relaytest.Script{NoTLS: true, Keywords: stepwise, Data: late}},
		"354 pipelined":   {script: relaytest.Script{NoTLS: true, Keywords: []string{"PIPELINING"}, Data: late}},
		"chunk":           {script: relaytest.Script{NoTLS: true, Keywords: chunks, Chunk: late}},
		"pooled":          {script: relaytest.Script{NoTLS: true, Keywords: stepwise, Rcpts: map[string]relaytest.Reply{"late@example.test": late}}, pooled: true},
		"phase 2":         {script: relaytest.Script{TLS: relaytest.TLS{Alert: 80}, Mail: late}, alone: true},
		"in mid-content":  {script: relaytest.Script{NoTLS: true, Keywords: stepwise, BodyLimit: 1 << 20, BodyOver: relaytest.Reply{Do: relaytest.Stall}}, body: big},
		"end":             {script: relaytest.Script{NoTLS: true, Keywords: stepwise, End: relaytest.Reply{Delay: 3 * time.Second}}, goesOn: true},
		"end, in one go":  {script: relaytest.Script{NoTLS: true, End: relaytest.Reply{Delay: 3 * time.Second}}, goesOn: true},
		"the second host": {script: relaytest.Script{NoTLS: true, Greeting: late}, hosts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := relaytest.Start(t)
			h := w.Host(t, "mx1.example.test", c.script)
			hosts := []*relaytest.Host{h}
			if c.hosts > 1 {
				hosts = []*relaytest.Host{w.Host(t, "mx0.example.test", relaytest.Script{Greeting: relaytest.Reply{Code: 421}}), h}
			}
			spare := w.Host(t, "mx2.example.test")
			if !c.alone {
				hosts = append(hosts, spare)
			}
			e := engine(t, w, routeTo(hosts...), func(o *Options) { o.CommandTimeout, o.HandshakeTimeout = time.Minute, time.Minute })
			before := 0
			if c.pooled {
				deliverOne(t, e, modeO, "clear")
				before = 1
			}
			job := jobTo(t, modeO, "late@example.test")
			if c.body != nil {
				job.Body = c.body
			}
			begin := time.Now()
			var changed atomic.Bool
			time.AfterFunc(demandsHold, func() { changed.Store(true) })
			job.Changed = func(*Job) bool { return changed.Load() }
			r := e.Deliver(context.Background(), job)
			took := time.Since(begin)
			switch {
			case c.goesOn:
				if r.Outcomes[0].Failure != nil || h.Accepted() != 1 {
					t.Errorf("%+v", failureOf(r))
				}
			case !r.Changed || !r.Cut || h.Accepted() > before || took > demandsHold+5*time.Second || r.Feedback != relay.Neutral:
				t.Errorf("after %v: changed %v, cut %v, %d taken, feedback %q", took, r.Changed, r.Cut, h.Accepted(), r.Feedback)
			}
			if p := e.client.Peers.Get(h.Addr()); !p.NoChunks.IsZero() || !p.Hangup.IsZero() || !p.OutOfStep.IsZero() {
				t.Errorf("held against the host: %+v", p)
			}
			if spare.Connections() > 0 {
				t.Error("the next host was asked")
			}
			h.Close()
		})
	}
}

// TestNothingNewIsOpened: what has come to MAIL goes on, and its answer
// counts; no other host is asked after it.
func TestNothingNewIsOpened(t *testing.T) {
	for name, c := range map[string]struct {
		end  relaytest.Reply
		fate string
	}{
		"taken":   {relaytest.Reply{Delay: time.Second}, "tls"},
		"put off": {relaytest.Reply{Delay: time.Second, Code: 451}, "defer"},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			first := w.Host(t, "mx1.example.test", relaytest.Script{End: c.end})
			second := w.Host(t, "mx2.example.test")
			job := jobTo(t, modeT)
			job.Opening = endWhen(first, mailed(first))
			r := engine(t, w, routeTo(first, second)).Deliver(context.Background(), job)
			if how(r) != c.fate || r.Cut || second.Connections() > 0 {
				t.Errorf("%s, %d connections to the second host: %+v", how(r), second.Connections(), r)
			}
		})
	}
}

// mailed reports whether h has been told MAIL.
func mailed(h *relaytest.Host) func() bool {
	return func() bool {
		s := h.Sessions()
		return len(s) > 0 && slices.ContainsFunc(s[0].Commands, func(c relaytest.Command) bool { return strings.HasPrefix(c.Line, "MAIL") })
	}
}

// TestInterruptedAttemptRulesNothing: what is left of the policy window ends with
// the evidence of all hosts, not with that of those who were asked before the
// relay had to stop.
func TestInterruptedAttemptRulesNothing(t *testing.T) {
	w := relaytest.Start(t)
	hangsUp := relaytest.Reply{Delay: time.Second, Do: relaytest.Close}
	first := w.Host(t, "mx1.example.test", relaytest.Script{KeywordsInTLS: []string{"PIPELINING"}, Rcpt: hangsUp})
	second := w.Host(t, "mx2.example.test")
	job := jobTo(t, modeT)
	job.Delivery.History = policy.History{
		Since: time.Now().Add(-48 * time.Hour), Ends: time.Now().Add(-24 * time.Hour),
		Violation: policy.HostVerdict{Host: "mx1.example.test"},
	}
	job.Opening = endWhen(first, mailed(first))
	r := engine(t, w, routeTo(first, second)).Deliver(context.Background(), job)
	if r.Attempt.Ruling != policy.Unreached || how(r) != "defer" || r.History.Since.IsZero() {
		t.Errorf("%s: %+v", r.Attempt.Ruling, failureOf(r))
	}
}

// TestSettledRecipients: only waiting recipients are delivered to, and have
// outcomes.
func TestSettledRecipients(t *testing.T) {
	w := relaytest.Start(t)
	h := w.Host(t, "mx1.example.test")
	job := jobTo(t, modeT, "a@example.test", "b@example.test", "c@example.test")
	job.Delivery.Recipients[1].State = relay.Delivered
	r := engine(t, w, routeTo(h)).Deliver(context.Background(), job)
	if m := h.Await(t, 1)[0]; len(r.Outcomes) != 2 || len(m.To) != 2 || m.To[1].Address != "c@example.test" {
		t.Errorf("%+v to %v", r.Outcomes, m.To)
	}
}

// TestProbe looks at every host, goes as far as MAIL, and agrees with Deliver.
func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		sender  policy.Sender
		scripts []relaytest.Script
		ruling  policy.Ruling
		rows    []string
	}{
		"T, both fine":      {modeT, []relaytest.Script{complies, complies}, policy.Allowed, []string{"ENC", "ENC"}},
		"T, second only":    {modeT, []relaytest.Script{violates, complies}, policy.Allowed, []string{"A4", "ENC"}},
		"T, none":           {modeT, []relaytest.Script{violates, violates}, policy.Block, []string{"A4", "A4"}},
		"T, one down":       {modeT, []relaytest.Script{violates, unreachable}, policy.Retry, []string{"A4", "A2"}},
		"O, in clear":       {modeO, []relaytest.Script{violates, unreachable}, policy.Allowed, []string{"A4", "A2"}},
		"O, phase 2":        {modeO, []relaytest.Script{otherwise, unreachable}, policy.Allowed, []string{"A4", "A2"}},
		"O, no need of it":  {modeO, []relaytest.Script{otherwise, complies}, policy.Allowed, []string{"B6", "ENC"}},
		"O, nobody at home": {modeO, []relaytest.Script{unreachable, unreachable}, policy.Unreached, []string{"A2", "A2"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := relaytest.Start(t)
			a, b := w.Host(t, "mx1.example.test", c.scripts[0]), w.Host(t, "mx2.example.test", c.scripts[1])
			e := engine(t, w, routeTo(a, b))
			rep := e.Probe(context.Background(), "example.test", c.sender)
			var rows []string
			for _, h := range rep.Hosts {
				rows = append(rows, h.Verdict.Row)
				if len(h.Connections) == 0 {
					t.Errorf("no evidence of %s", h.Host)
				}
			}
			if rep.Ruling != c.ruling || !slices.Equal(rows, c.rows) || rep.Deliverable() != (c.ruling == policy.Allowed) {
				t.Errorf("%s %v, failure %+v", rep.Ruling, rows, rep.Failure)
			}
			for _, h := range []*relaytest.Host{a, b} {
				for _, s := range h.Sessions() {
					for i, cmd := range s.Commands {
						switch verb, _, _ := strings.Cut(cmd.Line, " "); verb {
						case "EHLO", "STARTTLS", "RSET", "QUIT":
						case "MAIL":
							if cmd.Line != "MAIL FROM:<> SIZE=1000" || s.Commands[i+1].Line != "RSET" {
								t.Errorf("sent %v", s.Commands[i:])
							}
						default:
							t.Errorf("sent %s", cmd.Line)
						}
					}
				}
			}
			r := e.Deliver(context.Background(), jobTo(t, c.sender))
			if r.Attempt.Ruling != rep.Ruling {
				t.Errorf("Deliver rules %s, Probe %s", r.Attempt.Ruling, rep.Ruling)
			}
		})
	}
}
