package api

import (
	"context"
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
)

// Options are the settings of the API. The zero Options are safe.
type Options struct {
	// RequestsPerMinute is how many requests one key may make, and a tenth of what all
	// keys of an account may make; 0: no limit.
	RequestsPerMinute int
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// SourceAddresses are those that mail goes out from; none: the system's
	// choice.
	SourceAddresses []netip.Addr
	// AllowInsecureWebhooks admits http:// and private addresses as targets.
	AllowInsecureWebhooks bool
}

// Deps are what the API asks and changes.
type Deps struct {
	Accounts  account.Store
	Overrides account.OverrideStore
	Webhooks  webhook.Store
	Blocks    events.BlockStore
	Evidence  Evidence
	Checker   Checker
	Tester    Tester
	Log       *zap.Logger // nil: none
}

// Evidence finds what is kept of a message; relay.Operator has it.
type Evidence interface {
	// Message gives a message and its deliveries, waiting and finished;
	// relay.ErrNotFound when there is none.
	Message(ctx context.Context, id relay.MessageID) (relay.Message, []relay.Delivery, error)
}

// Checker looks at the hosts of a domain as a delivery would, without mail.
// What it returns is encoded as JSON.
type Checker interface {
	Check(ctx context.Context, domain string, s policy.Sender) (any, error)
}

// Tester posts a batch of sample events to an endpoint, signed and authorized
// as it says, and ends with ctx. Its error is for the log. webhook.Sender implements it.
type Tester interface {
	Test(ctx context.Context, e webhook.Endpoint) error
}

// server is the API behind its routes.
type server struct {
	Options
	Deps
	mux      *http.ServeMux
	limits   struct{ key, account limiter }
	requests *prometheus.CounterVec
	metrics  metrics

	checks, tests slots
}

// New makes the handler of the public API. reg may be nil.
func New(o Options, d Deps, reg prometheus.Registerer) http.Handler {
	if o.Now == nil {
		o.Now = time.Now
	}
	if d.Log == nil {
		d.Log = zap.NewNop()
	}
	s := &server{
		Options: o, Deps: d,
		requests: newRequestCounter(reg),
		checks:   slots{perAccount: 4, total: 64, grace: 10 * time.Second},
		tests:    slots{perAccount: 2, total: 32, grace: 5 * time.Second},
	}
	s.limits.key.perMinute, s.limits.account.perMinute = o.RequestsPerMinute, accountShare*o.RequestsPerMinute
	s.newMetrics(reg)
	s.mux = s.newMux(s.routes())
	return s
}
