package webhook

import "github.com/prometheus/client_golang/prometheus"

// metrics are about all webhooks together. No label names an endpoint; [Sender.Status]
// lists these.
type metrics struct {
	posts    *prometheus.CounterVec
	seconds  prometheus.Histogram
	sent     prometheus.Counter
	setAside prometheus.Counter
	dropped  *prometheus.CounterVec
}

// Why events were dropped.
const (
	dropExpired  = "expired"  // the endpoint did not take them within RetryFor
	dropDeleted  = "deleted"  // the endpoint was deleted
	dropOverflow = "overflow" // too many events of the account waited
)

func newMetrics(reg prometheus.Registerer, s *Sender) *metrics {
	m := &metrics{
		posts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_webhook_posts_total",
			Help: "Webhook POSTs, by class of outcome; all but 2xx are failures and retried.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tlsrelay_webhook_post_seconds",
			Help:    "How long webhook POSTs took, access token included.",
			Buckets: []float64{.01, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		sent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tlsrelay_webhook_events_sent_total",
			Help: "Events that an endpoint took.",
		}),
		setAside: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tlsrelay_webhook_events_set_aside_total",
			Help: "Events that an endpoint refused alone; each waits by itself from then on, and holds up no other.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_webhook_events_dropped_total",
			Help: "Events dropped: nobody took them in time (expired), more of their account waited than may (overflow), or the endpoint was deleted.",
		}, []string{"why"}),
	}
	// All series exist from the start. One that appears with its first count shows no
	// increase then, and an alert on it misses that.
	for _, why := range []string{dropExpired, dropDeleted, dropOverflow} {
		m.dropped.WithLabelValues(why)
	}
	for _, c := range []Class{
		ClassOK, Class3xx, Class4xx, Class5xx, ClassOther, ClassTimeout, ClassConnect, ClassTLS, ClassTarget, ClassOAuth, ClassKey,
	} {
		m.posts.WithLabelValues(string(c))
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.posts, m.seconds, m.sent, m.setAside, m.dropped,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tlsrelay_webhook_lag_seconds",
			Help: "Age of the oldest event that waits for an endpoint and is not set aside.",
		}, func() float64 { return s.lag().Seconds() }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tlsrelay_webhook_events_aside",
			Help: "Events set aside that wait now.",
		}, func() float64 { return float64(s.aside()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tlsrelay_webhook_endpoints_failing",
			Help: "Endpoints whose last POST failed.",
		}, func() float64 { return float64(s.failing()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tlsrelay_webhook_tokens",
			Help: "Access tokens that are kept, at most 10000.",
		}, func() float64 { return float64(s.tokens.len()) }),
	)
	return m
}
