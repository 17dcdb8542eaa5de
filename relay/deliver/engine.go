package deliver

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/policy"
	"tlsrelay/relay"
)

// Engine delivers. Its methods are safe for concurrent use.
type Engine struct {
	o      Options
	router Router
	log    *zap.Logger
}

// New makes an engine. Nothing runs until Run.
func New(o Options, router Router, log *zap.Logger, reg prometheus.Registerer) *Engine {
	return &Engine{o: o.withDefaults(), router: router, log: log}
}

// Run reaps idle sessions until ctx ends, and closes them all then.
func (e *Engine) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Deliver makes one attempt at the waiting recipients of job.
func (e *Engine) Deliver(ctx context.Context, job Job) relay.Result {
	return relay.Result{}
}

// Probe looks at every host and address of a destination without sending mail.
func (e *Engine) Probe(ctx context.Context, destination string, s policy.Sender) Report {
	return Report{}
}
