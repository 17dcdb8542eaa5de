package submission

import (
	"crypto/tls"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the metrics of submission. No client can make up the value of a label.
type metrics struct {
	connections  *prometheus.CounterVec
	current      prometheus.Gauge
	rejected     *prometheus.CounterVec
	messages     *prometheus.CounterVec
	authFailures prometheus.Counter
	bounded      *prometheus.CounterVec
	tls          *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	const ns, sub = "tlsrelay", "submission"
	counter := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: name, Help: help,
		}, []string{label})
	}
	m := &metrics{
		connections: counter("connections_total", "Submission connections accepted, by kind of listener.", "listener"),
		current: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: ns, Subsystem: sub, Name: "connections", Help: "Submission connections open now.",
		}),
		rejected: counter("rejected_total", "Submission connections turned away or cut off, by cause.", "cause"),
		messages: counter("messages_total", "Messages offered, by outcome: accepted, the class of the refusal, or aborted.", "outcome"),
		authFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: ns, Subsystem: sub, Name: "auth_failures_total", Help: "Failed AUTH attempts.",
		}),
		bounded: counter("account_bounds_total", "Replies of 452 to an account at one of its bounds, by bound.", "bound"),
		tls:     counter("tls_total", "TLS handshakes completed, by protocol version.", "version"),
	}
	// Every series begins at 0. One that begins with its first count shows no increase
	// then, and an alert on it misses the first event.
	for vec, values := range map[*prometheus.CounterVec][]string{
		m.connections: {"starttls", "tls"},
		m.rejected: {"max_connections", "max_connections_per_ip", "auth_failures", "tls_handshake",
			"max_strangers_per_ip", "gave_way", "account_share", "login_timeout", "commands_before_login", "key_ended", "proxy_header"},
		m.messages: {"accepted", "4xx", "5xx", "aborted"},
		m.tls:      {"1.2", "1.3"},
	} {
		for _, value := range values {
			vec.WithLabelValues(value)
		}
	}
	for _, bound := range []string{"content_memory", "recipients_per_hour"} {
		m.bounded.WithLabelValues(bound)
	}
	if reg != nil {
		reg.MustRegister(m.connections, m.current, m.rejected, m.messages, m.authFailures, m.bounded, m.tls)
	}
	return m
}

// bounds registers the bounds of s, and how much of them is in use.
func (s *Server) bounds(reg prometheus.Registerer) {
	if reg == nil {
		return
	}
	gauge := func(name, help string, value func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "tlsrelay", Subsystem: "submission", Name: name, Help: help,
		}, value))
	}
	limit := func(name, of string, n int64) {
		gauge(name, "The most there may be of "+of+"; 0: no limit.", func() float64 { return float64(n) })
	}
	gauge("strangers", "Submission connections open now that have shown no key.", func() float64 {
		n, _ := s.places.Counts()
		return float64(n)
	})
	limit("connections_limit", "submission connections", int64(s.o.MaxConnections))
	limit("strangers_limit", "those that have shown no key", int64(s.places.Strangers()))
	limit("strangers_per_ip_limit", "those that have shown no key, from one address", int64(s.o.MaxStrangersPerIP))
	gauge("content_bytes", "Memory of messages that are on their way in, in octets.", func() float64 { return float64(s.memory.InUse()) })
	limit("content_bytes_limit", "memory of messages that are on their way in; an account may have as much as it leaves free", s.o.contentMemory)
}

func (m *metrics) opened(implicit bool) {
	kind := "starttls"
	if implicit {
		kind = "tls"
	}
	m.connections.WithLabelValues(kind).Inc()
	m.current.Inc()
}

// handshake counts a handshake by its version; 0: it failed.
func (m *metrics) handshake(version uint16) {
	if version == 0 {
		m.rejected.WithLabelValues("tls_handshake").Inc()
		return
	}
	m.tls.WithLabelValues(strings.TrimPrefix(tls.VersionName(version), "TLS ")).Inc()
}

// finished counts a message by the code of its reply.
func (m *metrics) finished(code int) {
	outcome := "accepted"
	switch {
	case code >= 500:
		outcome = "5xx"
	case code >= 400:
		outcome = "4xx"
	}
	m.messages.WithLabelValues(outcome).Inc()
}
