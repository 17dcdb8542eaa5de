package main

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tlsrelay/configs"
	"tlsrelay/relay/queue"
	"tlsrelay/relay/relaytest"
)

// tenant is a subuser with its key and its webhook.
type tenant struct {
	key      string
	receiver *relaytest.Receiver
}

func (r *rig) newTenant(name string) tenant {
	r.t.Helper()
	key := r.newSubuser(name).Secret
	receiver, _ := r.webhook("Authorization", "Bearer "+key)
	return tenant{key, receiver}
}

// submitAs hands in one message with the key of a tenant.
func (r *rig) submitAs(t tenant, to ...string) {
	r.t.Helper()
	if _, err := r.trySubmit(t.key, "app@sender.test", to...); err != nil {
		r.t.Fatalf("submitting to %d: %v", len(to), err)
	}
}

// A tenant that registers domains, or names below one, and lets them fail its own
// demands, sets the mass-violation guard off for nobody. Nor does another, whose
// mail all arrives, keep it from holding when many domains of others fail.
func TestGuardIsNobodysTool(t *testing.T) {
	r := newRig(t, func(c *configs.Config) { c.Delivery.ViolationGuardDomains = 4 })
	plain := relaytest.Script{NoTLS: true}
	good := r.world.Host(t, "mx.good.test")
	var tenants []tenant
	for _, name := range []string{"shop", "mall", "evil"} {
		tenants = append(tenants, r.newTenant(name))
	}
	shop, mall, evil := tenants[0], tenants[1], tenants[2]
	for _, k := range tenants {
		if code, body := r.call("PATCH", "/v3/user/settings/enforced_tls", `{"require_tls":true}`, "Authorization", "Bearer "+k.key); code != 200 {
			t.Fatalf("%d %s", code, body)
		}
	}
	guard := func(want string) {
		t.Helper()
		if out := r.must("queue", "guard"); !strings.HasPrefix(out, want) {
			t.Errorf("guard: %s, want %s", out, want)
		}
	}
	sends := func(k tenant, want string, domains ...string) {
		t.Helper()
		for _, d := range domains {
			r.submitAs(k, "x@"+d)
			if e := r.event(k.receiver, "x@"+d, want); want == "bounce" && e["type"] != "blocked" {
				t.Errorf("%s: %v", d, e)
			}
		}
	}
	r.world.Host(t, "mx.usual.test", plain)
	sends(shop, "delivered", "good.test")
	sends(mall, "bounce", "usual.test")
	sends(mall, "delivered", "good.test")
	// All names below one domain, each at an address of its own; and registered
	// ones, with as many addresses.
	for i := range 6 {
		below, own := fmt.Sprintf("n%d.evil.test", i), fmt.Sprintf("evil%d.test", i)
		r.world.Host(t, "mx."+below, plain)
		r.world.Host(t, "mx."+own, plain)
		sends(evil, "bounce", below, own)
	}
	guard("not holding")
	r.world.Zone.MX("better.test", good.Name(), 10)
	sends(shop, "delivered", "better.test")

	// Now it sends where all is well, to as many names as it likes.
	r.must("queue", "guard", "--release")
	for i := range 30 {
		d := fmt.Sprintf("well%d.test", i)
		r.world.Zone.MX(d, good.Name(), 10)
		sends(evil, "delivered", d)
	}
	for i, k := range []tenant{shop, mall, shop} {
		d := fmt.Sprintf("failing%d.test", i)
		r.world.Host(t, "mx."+d, plain)
		sends(k, "bounce", d)
	}
	guard("not holding")
	r.world.Host(t, "mx.failing3.test", plain)
	sends(mall, "deferred", "failing3.test")
	guard("holding")
}

// An account with as much waiting as it may have is told so at MAIL and at the end
// of the content, never at a single recipient; also after a restart. Others do not
// notice, and its own reports come.
func TestQueueOfAnAccountIsBounded(t *testing.T) {
	r := newRig(t, func(c *configs.Config) {
		c.Submission.AllowPlaintextAuth = true
		c.Submission.MaxWaiting, c.Submission.MaxDestinations = 8, 3
	})
	later := relaytest.Script{Rcpt: relaytest.Reply{Code: 451, Text: "4.3.0 Later"}}
	for _, d := range []string{"a.test", "b.test", "c.test", "d.test"} {
		r.world.Host(t, "mx."+d, later)
	}
	full, other := r.newTenant("full"), r.newTenant("other")
	reports := r.world.Host(t, "mx.sender.test")
	good := r.world.Host(t, "mx.good.test")

	login := func(key string) *talker {
		t.Helper()
		c := talk(t, r.app.submission.Addrs()[0].String())
		c.say("EHLO app.test", "250")
		c.say("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00apikey\x00"+key)), "235")
		return c
	}
	// Refused by the number of recipients, and by that of destinations.
	c := login(full.key)
	send := func(want string, rcpts ...string) {
		t.Helper()
		c.say("MAIL FROM:<app@sender.test>", "250")
		for _, to := range rcpts {
			c.say("RCPT TO:<"+to+">", "250")
		}
		c.say("DATA", "354")
		c.say("Subject: test\r\n\r\nHello.\r\n.", want)
	}
	send("452 4.3.1", "1@a.test", "2@a.test", "3@a.test", "4@a.test", "5@a.test", "6@a.test", "7@a.test", "8@a.test", "9@a.test")
	send("452 4.3.1", "1@a.test", "1@b.test", "1@c.test", "1@d.test")
	send("250", "1@a.test", "2@a.test", "1@b.test", "1@c.test")
	send("452 4.3.1", "1@d.test")
	send("250", "2@c.test", "3@c.test", "4@c.test", "5@c.test")
	c.say("MAIL FROM:<app@sender.test>", "452 4.3.1")
	c.say("RCPT TO:<1@a.test>", "503")
	c.say("QUIT", "221")
	for bound, want := range map[string][2]float64{"recipients": {2, 8}, "destinations": {2, 3}} {
		n, limit := r.metric(`tlsrelay_account_waiting_refusals_total{bound="`+bound), r.metric(`tlsrelay_account_waiting_limit{bound="`+bound)
		if n != want[0] || limit != want[1] {
			t.Errorf("%s: %v refusals are counted, of a limit of %v", bound, n, limit)
		}
	}
	r.submitAs(other, "1@a.test", "1@good.test")
	good.Await(t, 1)

	r.stop()
	r.start()
	eventually(t, "what waits is counted", func() bool { return r.metric("tlsrelay_queue_deliveries") == 5 })
	c = login(full.key)
	c.say("MAIL FROM:<app@sender.test>", "452 4.3.1")
	c.say("QUIT", "221")
	// Eight are given up and reported: there is room again.
	r.must("queue", "drop", "--account", "full")
	c = login(full.key)
	reports.Await(t, 4)
	send("250", "1@d.test")
	c.say("QUIT", "221")
}

// One message of a tenant to 950 domains of a host that says nothing: the host gets
// as many connections as any, whatever names it has, and mail of others to hosts
// never heard of is delivered at once.
func TestOneMessageToManyTarpits(t *testing.T) {
	const domains, good = 950, 20
	r := newRig(t)
	evil, other := r.newTenant("evil"), r.newTenant("other")
	tarpit := r.world.Host(t, "mx.tarpit.test", relaytest.Script{Mail: relaytest.Reply{Do: relaytest.Silence}})
	var rcpts []string
	for i := range domains {
		d := fmt.Sprintf("d%d.tarpit.test", i)
		r.world.Zone.A("mx."+d, tarpit.Addr().Addr())
		r.world.Zone.MX(d, "mx."+d, 10)
		rcpts = append(rcpts, "a@"+d)
	}
	var hosts []*relaytest.Host
	for i := range good {
		hosts = append(hosts, r.world.Host(t, fmt.Sprintf("mx.good%d.test", i)))
	}
	latency := func(hosts []*relaytest.Host, n int) (worst time.Duration) {
		t.Helper()
		for _, h := range hosts {
			begun := time.Now()
			r.submitAs(other, "a@"+strings.TrimPrefix(h.Name(), "mx."))
			h.Await(t, n)
			worst = max(worst, time.Since(begun))
		}
		return worst
	}
	quiet := latency(hosts[:good/4], 1)
	r.submitAs(evil, rcpts...)
	most := r.config.Delivery.MaxConnectionsPerDestination
	eventually(t, "the tarpit has all it gets", func() bool { return tarpit.Open() == most })
	busy := latency(hosts[good/4:good/2], 1)
	eventually(t, "the others wait without a slot", func() bool {
		return r.metric("tlsrelay_queue_connection_waiting") >= domains-2*float64(most)
	})
	later := latency(hosts[good/2:], 1)
	t.Logf("at most %v before, %v while they come, %v then", quiet, busy, later)
	if worst := max(busy, later); worst > 10*time.Second {
		t.Errorf("a message of another took %v, and %v before", worst, quiet)
	}
	running, open := r.metric("tlsrelay_queue_attempts_running"), tarpit.Open()
	if open > most || tarpit.Connections() > 2*most || int(running) > 3*most {
		t.Errorf("%v attempts are under way, over %d connections of %d", running, open, tarpit.Connections())
	}
	if n := r.metric(`tlsrelay_connections_limit{bound="address"`); int(n) != most {
		t.Errorf("the limit of connections to an address is shown as %v", n)
	}
	if n := r.metric("tlsrelay_queue_crowded_total"); n == 0 {
		t.Error("no attempt without a connection is counted")
	}
	// The lanes say what they wait for.
	var lanes []queue.DestinationStatus
	getJSON(t, "http://"+r.app.admin.addr()+"/admin/v1/lanes?limit=10000", &lanes)
	if n := len(slices.DeleteFunc(lanes, func(l queue.DestinationStatus) bool { return l.Crowded != tarpit.Addr().String() })); n < domains/2 {
		t.Errorf("%d lanes are said to wait for %v", n, tarpit.Addr())
	}
	// It comes to itself, and all are served.
	if err := tarpit.SetScript(relaytest.Script{}); err != nil {
		t.Fatal(err)
	}
	tarpit.HangUp()
	eventually(t, "the others are served", func() bool { return tarpit.Accepted() >= domains-2*most })
}
