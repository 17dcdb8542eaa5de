package web

import "github.com/prometheus/client_golang/prometheus"

// metrics counts connections. No label holds anything a caller can make up.
type metrics struct {
	open         prometheus.Gauge
	rejected     *prometheus.CounterVec
	authFailures prometheus.Counter
}

// causes are why a connection or a request has no place, or no longer.
var causes = []string{"gave_way", "login_timeout", "max_connections", "account_share", "account_requests", "key_ended", "auth_failures"}

func newMetrics(s *Server, reg prometheus.Registerer) *metrics {
	of := prometheus.Labels{"listener": s.o.Name}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "tlsrelay", Subsystem: "http", Name: name, Help: help, ConstLabels: of}
	}
	gauge := func(name, help string, value func() float64) prometheus.GaugeFunc {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts(name, help)), value)
	}
	m := &metrics{
		open: prometheus.NewGauge(prometheus.GaugeOpts(opts("connections", "HTTP connections open now, by listener."))),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts(opts("rejected_total",
			"HTTP connections ended, and requests refused or held up, by listener and cause.")), []string{"cause"}),
		authFailures: prometheus.NewCounter(prometheus.CounterOpts(opts("auth_failures_total",
			"HTTP requests without a right key, where one is needed, by listener."))),
	}
	for _, cause := range causes {
		m.rejected.WithLabelValues(cause)
	}
	if reg == nil {
		return m
	}
	strangers := func() float64 { n, _ := s.places.Counts(); return float64(n) }
	reg.MustRegister(m.open, m.rejected, m.authFailures,
		gauge("strangers", "HTTP connections open now that have shown no key, by listener.", strangers),
		gauge("connections_limit", "The most there may be of HTTP connections, by listener.", func() float64 { return float64(s.o.MaxConnections) }),
		gauge("strangers_limit", "The most there may be of those that have shown no key, by listener.", func() float64 { return float64(s.places.Strangers()) }),
		gauge("strangers_per_ip_limit", "The most there may be of those that have shown no key, from one address, by listener.",
			func() float64 { return float64(s.o.MaxStrangersPerIP) }))
	return m
}
