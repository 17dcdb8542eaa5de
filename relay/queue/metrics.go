package queue

import (
	"github.com/prometheus/client_golang/prometheus"

	"tlsrelay/relay"
)

// metrics count what no event tells. None has a label that a stranger could
// make up.
type metrics struct {
	attempts, claimed, lanes            prometheus.Gauge
	uncommitted                         prometheus.Gauge
	feedback                            *prometheus.CounterVec
	claimFailures, commitFailures       prometheus.Counter
	panics                              prometheus.Counter
	shareWaits, crowded                 prometheus.Counter
	shareWaiting, siteWaiting           prometheus.Gauge
	healthyFeedback, neutral, inTrouble prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, holds func() bool) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tlsrelay_queue_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tlsrelay_queue_" + name, Help: help})
	}
	m := &metrics{
		attempts: gauge("attempts_running", "Delivery attempts under way."),
		claimed:  gauge("claimed", "Deliveries in memory whose attempt has not begun."),
		lanes:    gauge("lanes", "Lanes in memory."),
		uncommitted: gauge("uncommitted_outcomes",
			"Outcomes whose commit failed and is tried again; each holds the slot of an attempt."),
		feedback: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_queue_attempts_total",
			Help: "Finished delivery attempts, by what they said of the destination: healthy, trouble, neutral.",
		}, []string{"feedback"}),
		claimFailures:  counter("claim_failures_total", "Claims that the store failed."),
		commitFailures: counter("commit_failures_total", "Tries to commit an outcome that the store failed; each is repeated."),
		panics:         counter("panics_total", "Attempts that panicked."),
		shareWaits: counter("share_waits_total",
			"Times that a destination's mail had to wait because its account has its share of the slots that are not for proven destinations."),
		shareWaiting: gauge("share_waiting", "Destinations, by account, whose mail is due and waits for its account's share."),
		crowded: counter("crowded_total",
			"Attempts put off because a host or an address had all the connections it may have."),
		siteWaiting: gauge("connection_waiting", "Destinations, by account, whose mail is due and waits for a connection to a host or an address that has all it may have."),
	}
	m.healthyFeedback = m.feedback.WithLabelValues("healthy")
	m.inTrouble = m.feedback.WithLabelValues("trouble")
	m.neutral = m.feedback.WithLabelValues("neutral")
	if reg != nil {
		reg.MustRegister(m.attempts, m.claimed, m.lanes, m.uncommitted, m.feedback, m.claimFailures, m.commitFailures, m.panics,
			m.shareWaits, m.shareWaiting, m.crowded, m.siteWaiting,
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "tlsrelay_guard_holding",
				Help: "1 while the mass-violation guard puts drops off (tls-policy 3.1).",
			}, func() float64 {
				if holds() {
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
		m.healthyFeedback.Inc()
	case relay.Trouble:
		m.inTrouble.Inc()
	default:
		m.neutral.Inc()
	}
}

// observe reads the loop's books; the loop calls it.
func (m *metrics) observe(s *scheduler) {
	m.attempts.Set(float64(s.busy.total()))
	m.claimed.Set(float64(s.held.total()))
	m.lanes.Set(float64(len(s.lanes)))
	m.shareWaiting.Set(float64(s.waiting[blocked]))
	m.siteWaiting.Set(float64(s.waiting[sited]))
}
