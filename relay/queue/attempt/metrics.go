package attempt

import (
	"github.com/prometheus/client_golang/prometheus"

	"tlsrelay/relay"
)

// metrics count what no event tells. None has a label that a stranger could
// make up.
type metrics struct {
	uncommitted               prometheus.Gauge
	commitFailures, panics    prometheus.Counter
	healthy, trouble, neutral prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, guardActive func() bool) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tlsrelay_queue_" + name, Help: help})
	}
	feedback := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tlsrelay_queue_attempts_total",
		Help: "Finished delivery attempts, by what they said of the destination: healthy, trouble, neutral.",
	}, []string{"feedback"})
	m := &metrics{
		uncommitted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tlsrelay_queue_uncommitted_outcomes",
			Help: "Outcomes whose commit failed and is tried again; each holds the slot of an attempt.",
		}),
		commitFailures: counter("commit_failures_total", "Tries to commit an outcome that the store failed; each is repeated."),
		panics:         counter("panics_total", "Attempts that panicked."),
		healthy:        feedback.WithLabelValues("healthy"),
		trouble:        feedback.WithLabelValues("trouble"),
		neutral:        feedback.WithLabelValues("neutral"),
	}
	if reg != nil {
		reg.MustRegister(feedback, m.uncommitted, m.commitFailures, m.panics,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "tlsrelay_guard_holding",
				Help: "1 while the mass-violation guard puts drops off.",
			}, func() float64 {
				if guardActive() {
					return 1
				}
				return 0
			}))
	}
	return m
}

func (m *metrics) attempted(f relay.Feedback) {
	switch f {
	case relay.Healthy:
		m.healthy.Inc()
	case relay.Trouble:
		m.trouble.Inc()
	default:
		m.neutral.Inc()
	}
}
