package deliver

import (
	"context"
	"testing"
	"time"

	"tlsrelay/relay"
)

// an address that is known to be out of step: what is heard between two steps is thrown away, and
// with it the answer to the step before. Told: the bad one has it, the good one is bounced.
func TestDoubtedHostSwapsNobody(t *testing.T) {
	m := &mini{keywords: kwNone, delay: 8 * time.Millisecond}
	m.also = func(c *miniConn, s, arg string) string {
		if s == "mail" {
			return "250 2.1.0 Ok\r\n"
		}
		return ""
	}
	m.on = func(c *miniConn, s, arg string) string {
		if s == "rcpt" && arg == "bad@example.test" {
			return "550 5.1.1 who"
		}
		return ""
	}
	e := m.start(t, hasty)
	e.client.Peers.StepByStep(miniAddr(e, 0))
	for range 20 {
		before, good := m.times("bad@example.test"), m.times("good@example.test")
		r := e.Deliver(context.Background(), jobTo(t, modeO, "bad@example.test", "good@example.test"))
		if r.Outcomes[0].Failure == nil && m.times("bad@example.test") == before {
			t.Errorf("refused, told as delivered: %v", tell(r))
		}
		if f := r.Outcomes[1].Failure; f != nil && f.Class == relay.Permanent && m.times("good@example.test") > good {
			t.Errorf("taken, told as bounced: %v", tell(r))
		}
	}
}
