package main

import (
	"fmt"
	"strings"
	"testing"

	"tlsrelay/configs"
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
	sends(shop, "delivered", "good.test")

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
