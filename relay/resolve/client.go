package resolve

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/miekg/dns"
)

// asker answers one question by asking somebody. [client] is the real one.
type asker interface {
	ask(ctx context.Context, q question) answer
}

// client asks one recursive resolver.
type client struct {
	server  string
	dnssec  bool          // ask for AD (DO, RFC 4035 §3.2.1)
	timeout time.Duration // of one question, all tries together
}

// udpSize keeps answers within one unfragmented packet (DNS flag day 2020).
const udpSize = 1232

// tries are made in turn until one is answered. The last goes by TCP, for
// networks that lose UDP.
var tries = [...]struct {
	network string
	share   time.Duration // of the timeout, in hundredths
}{{"udp", 15}, {"udp", 30}, {"tcp", 55}}

func (c *client) ask(ctx context.Context, q question) answer {
	var last answer
	for _, t := range tries {
		last = c.try(ctx, t.network, c.timeout*t.share/100, q)
		if last.outcome != unanswered || ctx.Err() != nil {
			break
		}
	}
	return last
}

// try asks once over one network, going on by TCP when the answer was
// truncated (RFC 7766 §5), and without EDNS0 when the server does not know it
// (RFC 6891 §6.2.2).
func (c *client) try(ctx context.Context, network string, timeout time.Duration, q question) answer {
	m := new(dns.Msg).SetQuestion(q.name, q.qtype)
	m.SetEdns0(udpSize, c.dnssec)
	r, err := c.exchange(ctx, network, timeout, m)
	if err == nil && r.Truncated {
		network = "tcp"
		r, err = c.exchange(ctx, network, timeout, m)
	}
	a := c.read(r, err, q)
	if a.outcome == refused {
		m.Extra = nil
		r, err = c.exchange(ctx, network, timeout, m)
		if err == nil && r.Truncated {
			r, err = c.exchange(ctx, "tcp", timeout, m)
		}
		a = c.read(r, err, q)
	}
	return a
}

func (c *client) read(r *dns.Msg, err error, q question) answer {
	var network net.Error
	switch {
	case err == nil && r.Truncated:
		return troubled(unanswered, "answer cut short")
	case err == nil:
		return interpret(r, q)
	case errors.As(err, &network) && network.Timeout():
		return troubled(unanswered, "timeout")
	case errors.As(err, &network):
		return troubled(unanswered, "resolver unreachable")
	}
	return troubled(unanswered, "malformed answer")
}

func (c *client) exchange(ctx context.Context, network string, timeout time.Duration, m *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	d := dns.Client{Net: network, Timeout: timeout, UDPSize: udpSize}
	r, _, err := d.ExchangeContext(ctx, m, c.server)
	return r, err
}
