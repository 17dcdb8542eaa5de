package api

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/relay"
	"tlsrelay/relay/api/hooks"
	"tlsrelay/relay/api/mail"
	"tlsrelay/relay/api/rest"
)

// Options are the settings of the API. The zero Options are safe.
type Options struct {
	// RequestsPerMinute is how many requests one key may make. All keys of an account may
	// make ten times as many; 0: no limit.
	RequestsPerMinute int
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// SourceAddresses are those that mail goes out from; none: the system chooses.
	SourceAddresses []netip.Addr
	// AllowInsecureWebhooks admits http:// and private addresses as targets.
	AllowInsecureWebhooks bool
}

// Deps are what the calls ask and change.
type Deps struct {
	Accounts  account.Store
	Overrides account.OverrideStore
	Webhooks  webhook.Store
	Blocks    events.BlockStore
	Messages  relay.Operator
	Checker   Checker
	Tester    hooks.Tester

	// For the operator alone.
	Queue     mail.Queue
	Lanes     func(limit int) (some any, more int) // state of the destination queues in memory
	Endpoints func() any                           // state of every endpoint with something waiting

	Log *zap.Logger // nil: none
}

// Checker looks at the hosts of a domain as a delivery would, without mail.
// What it returns is encoded as JSON.
type Checker interface {
	Check(ctx context.Context, domain string, s policy.Sender) (any, error)
}

// server is the calls about accounts, and what all calls share.
type server struct {
	Options
	Deps
	hooks  hooks.Calls
	mail   mail.Calls
	limits struct{ key, account rest.Limiter }
	// Slots of checks and webhook tests under way. Those of the operator are apart: no
	// tenant can take them.
	checks, operatorChecks, tests *rest.Slots
	lists                         *rest.Turns // of calls on the block list
}

// Handlers are the two surfaces, for a listener each.
type Handlers struct{ Public, Operator http.Handler }

// New makes the handlers. reg may be nil.
func New(o Options, d Deps, reg prometheus.Registerer) Handlers {
	if o.Now == nil {
		o.Now = time.Now
	}
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	s := newServer(o, d)
	counters := s.newMetrics(reg)
	surface := rest.Surface{
		Known: known, Now: o.Now, Log: d.Log, Requests: counters.requests, Bounds: counters.bounds,
	}
	public, operator := surface, surface
	public.Admit, public.AnyOrigin = s.admit, true
	operator.Admit = s.admitOperator
	return Handlers{public.Handler(ofSurface(s.routes(), false)), operator.Handler(ofSurface(s.routes(), true))}
}

func newServer(o Options, d Deps) *server {
	s := &server{
		Options: o, Deps: d,
		checks:         &rest.Slots{PerAccount: 4, Total: 64, Grace: 10 * time.Second, Bound: boundChecks},
		operatorChecks: &rest.Slots{PerAccount: 16, Total: 16, Bound: boundChecks},
		tests:          &rest.Slots{PerAccount: 2, Total: 32, Grace: 5 * time.Second, Bound: boundTests},
		lists:          rest.NewTurns(2, 16, 10*time.Second, boundLists),
	}
	s.hooks = hooks.Calls{Store: d.Webhooks, Tester: d.Tester, Tests: s.tests, AllowInsecure: o.AllowInsecureWebhooks}
	s.mail = mail.Calls{Accounts: d.Accounts, Blocks: d.Blocks, Store: d.Messages, Queue: d.Queue, Lanes: d.Lanes}
	s.limits.key.PerMinute, s.limits.account.PerMinute = o.RequestsPerMinute, accountShare*o.RequestsPerMinute
	return s
}

// known gives the fault that an error of a store stands for; nil: none.
func known(err error) *rest.Fault {
	switch {
	case errors.Is(err, webhook.ErrNotFound):
		return hooks.NotFound()
	case errors.Is(err, account.ErrNotFound), errors.Is(err, relay.ErrNotFound), errors.Is(err, events.ErrNoBlock):
		return rest.FaultOf(http.StatusNotFound)
	case errors.Is(err, account.ErrExists):
		return conflict("exists already")
	case errors.Is(err, account.ErrTooMany):
		return conflict("there are as many already as there may be")
	}
	return nil
}

// conflict is what the operator hears. The public calls turn these errors into
// SendGrid's faults before.
func conflict(text string) *rest.Fault {
	return rest.Worded(http.StatusConflict, text, rest.AboutField("", text))
}
