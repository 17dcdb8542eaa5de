package deliver

import (
	"net/netip"

	"tlsrelay/policy"
	"tlsrelay/relay/deliver/pool"
	"tlsrelay/relay/deliver/smtp"
)

// addressAttempt is what an attempt has tried at one address.
type addressAttempt struct {
	hello      policy.Hello
	remembered bool // it began with the compat ClientHello, as the last time
	used       map[policy.Hello]bool
	tried      []policy.Verdict  // what counts of the connections
	shown      []policy.Observed // what all of them showed
}

// address tries one address, with the first ClientHello and then with those that the
// verdicts ask for, each on a connection of its own.
func (a *attempt) address(h *host, k smtp.Target) {
	c := &addressAttempt{hello: a.e.client.Profiles.First(k.Addr), used: make(map[policy.Hello]bool, 3)}
	c.remembered = c.hello == policy.CompatHello
	for {
		s, seen, err := a.connect(h, k, smtp.OpenOptions{Hello: c.hello}, false)
		if err != nil {
			a.discard(s)
			return
		}
		if seen.NoRoute {
			return
		}
		if s != nil {
			if c.hello == policy.CompatHello && !c.remembered && !s.Reused {
				a.e.client.Profiles.Compat.Note(k.Addr)
			}
			if a.useSession(h, s, seen) == dead {
				continue // the same ClientHello, on another session
			}
			return
		}
		if !a.next(c, k, seen) {
			break
		}
	}
	a.leave(h, k, c)
}

// next gives c the ClientHello for the connection after one that failed; false: there is
// none left.
func (a *attempt) next(c *addressAttempt, k smtp.Target, seen smtp.Observation) bool {
	c.used[c.hello] = true
	c.tried = append(c.tried, seen.Verdict)
	c.shown = append(c.shown, seen.Observed)
	next := another(seen.Verdict)
	if next == "" && c.remembered && c.hello == policy.CompatHello && handshaking(seen) {
		// The address no longer needs what it needed the last time.
		a.e.client.Profiles.Compat.Forget(k.Addr)
		c.tried, next = nil, policy.FullHello
	}
	if next == "" || c.used[next] {
		return false
	}
	c.hello = next
	return true
}

// another gives the ClientHello that a verdict asks for, "" for none.
func another(v policy.Verdict) policy.Hello {
	switch v.Action {
	case policy.RetryCompat:
		return policy.CompatHello
	case policy.RetryNoSNI:
		return policy.NoSNIHello
	}
	return ""
}

// handshaking reports whether the ClientHello may be why the connection failed.
func handshaking(s smtp.Observation) bool {
	return s.Observed.Stage == policy.StageHandshake || s.Observed.Stage == policy.StageEHLOTLS
}

// leave gives an address its verdict.
func (a *attempt) leave(h *host, k smtp.Target, c *addressAttempt) {
	v := policy.JudgeAddress(c.tried)
	if h.decision.ProbesVersion(c.shown) {
		v = a.probeVersion(h, k, v)
	}
	h.verdicts = append(h.verdicts, v)
	if v.ClearLater {
		h.clear = append(h.clear, k.Addr)
	}
	if v.Class == policy.Suspicious {
		if a.tampered == nil {
			a.tampered = make(map[netip.AddrPort]bool)
		}
		a.tampered[k.Addr] = true
	}
}

// probeVersion asks an address which versions of TLS it has, on one more
// connection that offers them all and carries no mail, once in an attempt. stands is
// the verdict on it so far.
func (a *attempt) probeVersion(h *host, k smtp.Target, stands policy.Verdict) policy.Verdict {
	if o, ok := a.probed[k.Addr]; ok {
		return h.decision.JudgeProbe(o, stands)
	}
	if a.done() {
		return stands
	}
	ctx, done := a.opening()
	defer done()
	if s, err := a.e.pool.Acquire(ctx, k, pool.Fresh, 0); s != nil || err != nil {
		return stands
	}
	_, seen := a.e.open(ctx, h, k, smtp.OpenOptions{Hello: policy.ProbeHello})
	a.e.pool.Release(k, false)
	if ctx.Err() != nil || seen.NoRoute {
		return stands
	}
	seen.Verdict = h.decision.JudgeProbe(seen.Observed, stands)
	a.record(h, k, seen)
	if a.probed == nil {
		a.probed = make(map[netip.AddrPort]policy.Observed)
	}
	a.probed[k.Addr] = seen.Observed
	return seen.Verdict
}
