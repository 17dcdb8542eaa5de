package resolve

import (
	"errors"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	lookups      *prometheus.CounterVec
	latency      prometheus.Histogram
	hits, misses prometheus.Counter // of the record cache
	routeHits    prometheus.Counter
	validating   prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tlsrelay_dns_cache_requests_total",
		Help: "Look-ups in the caches of routes and of records, by cache and result.",
	}, []string{"cache", "result"})
	m := &metrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_dns_lookups_total",
			Help: "Questions asked of the resolver, by record type and outcome.",
		}, []string{"type", "outcome"}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tlsrelay_dns_lookup_seconds",
			Help:    "Time until a question was answered or given up.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		hits:      requests.WithLabelValues("record", "hit"),
		misses:    requests.WithLabelValues("record", "miss"),
		routeHits: requests.WithLabelValues("route", "hit"),
		validating: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "tlsrelay_dnssec_validating",
			Help: "1 while the resolver's word on DNSSEC is believed.",
		}),
	}
	// Every series there is: one that is born when it first counts has no increase
	// then, and an alert on it misses the first of what it waits for.
	for _, qtype := range []uint16{dns.TypeMX, dns.TypeA, dns.TypeAAAA, dns.TypeSOA} {
		for _, o := range []outcome{found, noData, noName, aliasOnly, failed, unanswered, refused} {
			m.lookups.WithLabelValues(dns.TypeToString[qtype], string(o))
		}
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{requests, m.lookups, m.latency, m.validating} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) asked(qtype uint16, o outcome, took time.Duration) {
	m.lookups.WithLabelValues(dns.TypeToString[qtype], string(o)).Inc()
	m.latency.Observe(took.Seconds())
}
