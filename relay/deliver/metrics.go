package deliver

import (
	"github.com/prometheus/client_golang/prometheus"

	"tlsrelay/policy"
	"tlsrelay/relay"
	"tlsrelay/relay/deliver/pool"
	"tlsrelay/relay/deliver/smtp"
)

// metrics are the engine's counters. No label is a stranger's to make up:
// reasons, rows and versions are closed sets.
type metrics struct {
	deliveries *prometheus.CounterVec // per recipient
	handshakes *prometheus.HistogramVec
	seconds    prometheus.Histogram
	opened     prometheus.Counter
	reused     prometheus.Counter
	resumed    prometheus.Counter
	hellos     *prometheus.CounterVec
	plaintext  prometheus.Counter
	verdicts   *prometheus.CounterVec
	crowded    prometheus.Counter
	again      *prometheus.CounterVec

	ticketFailed prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, p *pool.Pool, o Options) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		deliveries: counters("tlsrelay_deliveries_total", "Recipients answered for by attempts, by negotiated TLS version and outcome.", "tls", "outcome"),
		handshakes: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "tlsrelay_handshake_seconds", Help: "Time of TLS handshakes with receiving hosts.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12),
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "tlsrelay_delivery_seconds", Help: "Time of delivery attempts.",
			Buckets: prometheus.ExponentialBuckets(0.001, 3, 13),
		}),
		opened:    counter("tlsrelay_connections_opened_total", "Connections opened to receiving hosts."),
		reused:    counter("tlsrelay_connections_reused_total", "Times an idle session carried another message."),
		resumed:   counter("tlsrelay_tls_resumed_total", "Handshakes that resumed an earlier TLS session."),
		hellos:    counters("tlsrelay_tls_hellos_total", "ClientHellos sent, by kind and outcome.", "hello", "outcome"),
		plaintext: counter("tlsrelay_plaintext_fallbacks_total", "Opportunistic deliveries in clear to hosts whose TLS failed."),
		verdicts:  counters("tlsrelay_verdicts_total", "Verdicts on connections, by evidence class and reason.", "class", "reason"),
		crowded:   counter("tlsrelay_connections_crowded_total", "Connections refused by hosts that had as many of ours as they take."),
		again:     counters("tlsrelay_transactions_repeated_total", "Transactions begun anew on another connection at once, by why.", "cause"),

		ticketFailed: counter("tlsrelay_tls_ticket_failures_total", "Connections that failed where a session ticket was offered, and were made again without one."),
	}
	for _, c := range smtp.Causes {
		m.again.WithLabelValues(string(c))
	}
	m.begin()
	if reg == nil {
		return m
	}
	gauge := func(name, help string, f func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(f()) })
	}
	limit := func(bound string, n int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tlsrelay_connections_limit", ConstLabels: prometheus.Labels{"bound": bound},
			Help: "Connections to receiving hosts that there may be: in all, to a host name, and to an address.",
		}, func() float64 { return float64(n) })
	}
	reg.MustRegister(limit("all", o.MaxConnections), limit("host", o.MaxPerHost), limit("address", o.MaxPerHost))
	reg.MustRegister(m.deliveries, m.handshakes, m.seconds, m.opened, m.reused, m.resumed, m.hellos, m.plaintext, m.verdicts, m.crowded, m.again, m.ticketFailed,
		gauge("tlsrelay_connections_open", "Connections to receiving hosts, idle ones included.", func() int { return p.Stats().Open }),
		gauge("tlsrelay_connections_idle", "Idle sessions kept for reuse.", func() int { return p.Stats().Idle }))
	return m
}

// begin makes every series there is: one that is born when it first counts has no
// increase then, and an alert on it misses the first of what it waits for.
func (m *metrics) begin() {
	for _, version := range []string{"none", "1.0", "1.1", "1.2", "1.3"} {
		for _, outcome := range []string{"delivered", string(relay.Temporary), string(relay.Permanent), string(relay.Refused)} {
			m.deliveries.WithLabelValues(version, outcome)
		}
	}
	for _, outcome := range []string{"ok", "failed"} {
		m.handshakes.WithLabelValues(outcome)
		for _, h := range []policy.Hello{policy.FullHello, policy.CompatHello, policy.NoSNIHello, policy.ProbeHello} {
			m.hellos.WithLabelValues(string(h), outcome)
		}
	}
	for _, row := range policy.Rows() {
		for _, f := range row.Findings() {
			m.verdicts.WithLabelValues(string(f.Class), string(f.Reason))
		}
	}
}

// connection counts one that was tried.
func (m *metrics) connection(seen smtp.Observation) {
	if seen.Local.IsValid() {
		m.opened.Inc()
	}
	if seen.Took == 0 {
		return
	}
	outcome, t := "ok", seen.Observed.TLS
	if t == nil {
		outcome = "failed"
	}
	m.handshakes.WithLabelValues(outcome).Observe(seen.Took.Seconds())
	m.hellos.WithLabelValues(string(seen.Observed.Hello), outcome).Inc()
	if t != nil && t.Resumed {
		m.resumed.Inc()
	}
}

func (m *metrics) verdict(v policy.Verdict) {
	m.verdicts.WithLabelValues(string(v.Class), string(v.Reason)).Inc()
}

// delivery counts the outcomes of one attempt.
func (m *metrics) delivery(r relay.Result) {
	m.seconds.Observe(r.Attempt.Took.Seconds())
	for _, o := range r.Outcomes {
		outcome, version := "delivered", o.Session.TLSVersion
		if o.Failure != nil {
			outcome = string(o.Failure.Class)
		}
		if version == "" {
			version = "none"
		}
		m.deliveries.WithLabelValues(version, outcome).Inc()
	}
}
