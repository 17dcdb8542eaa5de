package queue

import "github.com/prometheus/client_golang/prometheus"

// metrics count what no event tells; those of attempts are in relay/queue/attempt.
// None has a label that a stranger could make up.
type metrics struct {
	attempts, claimed, lanes prometheus.Gauge
	claimFailures            prometheus.Counter
	shareWaits, crowded      prometheus.Counter
	shareWaiting, waiting    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "tlsrelay_queue_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "tlsrelay_queue_" + name, Help: help})
	}
	m := &metrics{
		attempts:      gauge("attempts_running", "Delivery attempts under way."),
		claimed:       gauge("claimed", "Deliveries in memory whose attempt has not begun."),
		lanes:         gauge("lanes", "Destination queues in memory."),
		claimFailures: counter("claim_failures_total", "Claims that the store failed."),
		shareWaits: counter("share_waits_total",
			"Times that a destination's mail had to wait because its account has its share of the slots that are not for proven destinations."),
		shareWaiting: gauge("share_waiting", "Destinations, by account, whose mail is due and waits for its account's share."),
		crowded: counter("crowded_total",
			"Attempts put off because a host or an address had all the connections it may have."),
		waiting: gauge("connection_waiting", "Destinations, by account, whose mail is due and waits for a connection to a host or an address that has all it may have."),
	}
	if reg != nil {
		reg.MustRegister(m.attempts, m.claimed, m.lanes, m.claimFailures, m.shareWaits, m.shareWaiting, m.crowded, m.waiting)
	}
	return m
}

// observe reads the counts of the loop, which calls it.
func (m *metrics) observe(s *scheduler) {
	m.attempts.Set(float64(s.running.Total()))
	m.claimed.Set(float64(s.claimed.Total()))
	m.lanes.Set(float64(len(s.queues)))
	m.shareWaiting.Set(float64(s.waiting[waitsForQuota]))
	m.waiting.Set(float64(s.waiting[waitsForConnection]))
}
