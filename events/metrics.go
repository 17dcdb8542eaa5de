package events

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts events. Its labels come from closed sets: no sender and no
// host can add a time series.
type Metrics struct {
	events     *prometheus.CounterVec
	blocks     *prometheus.CounterVec
	recipients *prometheus.CounterVec
	age        prometheus.Histogram

	// The counters of every delivered message, looked up beforehand.
	processed, delivered prometheus.Counter
}

// NewMetrics registers the metrics of events with reg; nil registers nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		events: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_events_total",
			Help: "Events by kind; bounces also by type.",
		}, []string{"kind", "type"}),
		blocks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_blocks_total",
			Help: "Recipients blocked (by TLS demands, by hosts for the sake of message or sender, by expiry or an operator), by reason.",
		}, []string{"reason"}),
		recipients: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_recipients_total",
			Help: "Outcomes of attempts per recipient (delivered, deferred, bounce, blocked), by TLS version of the session; none: in clear, or no session.",
		}, []string{"outcome", "tls"}),
		age: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tlsrelay_delivery_age_seconds",
			Help:    "Time from acceptance to delivery, per recipient.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 15, 60, 300, 1800, 3600, 14400, 86400, 259200},
		}),
	}
	m.processed = m.events.WithLabelValues(string(Processed), "")
	m.delivered = m.events.WithLabelValues(string(Delivered), "")
	m.begin()
	if reg != nil {
		reg.MustRegister(m.events, m.blocks, m.recipients, m.age)
	}
	return m
}

// otherLabel stands for values that a later version has written into the store.
const otherLabel = "other"

// begin makes all series. One that appears with its first count shows no increase then,
// and an alert on it misses that.
func (m *Metrics) begin() {
	m.events.WithLabelValues(string(Deferred), "")
	for _, t := range []BounceType{TypeBounce, TypeBlocked} {
		m.events.WithLabelValues(string(Bounce), string(t))
	}
	for _, r := range append(Reasons(), otherLabel) {
		m.blocks.WithLabelValues(r.label())
	}
	for _, outcome := range []string{string(Delivered), string(Deferred), string(Bounce), string(TypeBlocked)} {
		for _, v := range []string{"none", "1.0", "1.1", "1.2", "1.3", otherLabel} {
			m.recipients.WithLabelValues(outcome, v)
		}
	}
}

// Count counts one event.
func (m *Metrics) Count(e Event) {
	switch e.Kind {
	case Processed:
		m.processed.Inc()
		return
	case Delivered:
		m.delivered.Inc()
		m.age.Observe(e.Age.Seconds())
	default:
		m.events.WithLabelValues(string(e.Kind), string(e.Type)).Inc()
	}
	outcome := string(e.Kind)
	if e.Type == TypeBlocked {
		outcome = string(TypeBlocked)
		m.blocks.WithLabelValues(e.Reason.label()).Inc()
	}
	m.recipients.WithLabelValues(outcome, versionLabel(e.TLSVersion)).Inc()
}

func versionLabel(v string) string {
	switch v {
	case "1.0", "1.1", "1.2", "1.3":
		return v
	case "":
		return "none"
	}
	return otherLabel
}

// label returns the token for a metric. A token that is not in the closed set, because a
// later version wrote it, becomes "other".
func (r Reason) label() string {
	switch {
	case r == NoReason:
		return "none"
	case slices.Contains(reasons, r):
		return string(r)
	}
	return otherLabel
}
