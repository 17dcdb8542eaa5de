package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tlsrelay/events/webhook"
	"tlsrelay/policy/account"
)

// What an account can make grow through the API, or keep waiting, and what holds it.
// A refusal at a bound is counted in tlsrelay_api_bound_refusals_total by the name in
// the first column.
//
//	requests          of a key, requests_per_minute; 429      limit.go
//	account_requests  of an account, all keys: ten times
//	                  that of a key; 429                      limit.go
//	checks            under way: 4 of an account, 64 of all;
//	                  each ends after two minutes; 429        slots.go, check.go
//	webhook_tests     under way: 2 of an account, 32 of all;
//	                  each ends after ten seconds; 429        slots.go, webhooks.go
//	keys              100 of an account; 403                  policy/account/bounds.go
//	subusers          100,000 accounts in all; 403            policy/account/bounds.go
//	domain_rules      10,000 of an account, 1,000,000 of all,
//	                  and 100 of each in any case; 403        policy/account/bounds.go
//	webhooks          5 of an account, each with its own URL;
//	                  400                                     events/webhook/endpoint.go
//
// Nothing but the size of a field or a body holds what is stored once: settings, the
// name of a key (255 octets) and its scopes (those there are, each once), username
// (64), email (254), the URLs (2,048), OAuth fields (1,024), friendly name (255) and
// signing key of a webhook, the reason of a rule (1,000). A body has at most 8 KiB, or
// 1 MiB where it is a list; larger ones are 413. Addresses in a removal of blocks that
// are not in the list cost no write. Access tokens: events/webhook/oauth.go. Mail:
// relay/submission and relay/store.
type bound string

const (
	boundRequests        bound = "requests"
	boundAccountRequests bound = "account_requests"
	boundChecks          bound = "checks"
	boundTests           bound = "webhook_tests"
	boundKeys            bound = "keys"
	boundSubusers        bound = "subusers"
	boundRules           bound = "domain_rules"
	boundWebhooks        bound = "webhooks"
)

const (
	// maxWebhooks is how many webhooks an account may have.
	maxWebhooks = webhook.MaxPerAccount
	// maxKeys is how many keys an account may have.
	maxKeys = account.MaxKeys
	// checkTimeout is how long a check takes at most.
	checkTimeout = 2 * time.Minute
	// accountShare is how many times the requests of one key all keys of an account
	// may make in a minute.
	accountShare = 10
)

// metrics of the bounds.
type metrics struct {
	refusals *prometheus.CounterVec
}

// newMetrics makes s's slots and the series of all bounds.
func (s *server) newMetrics(reg prometheus.Registerer) {
	with := promauto.With(reg)
	s.metrics.refusals = with.NewCounterVec(prometheus.CounterOpts{
		Name: "tlsrelay_api_bound_refusals_total",
		Help: "Requests that were refused because a key, an account or all accounts have as much as they may have.",
	}, []string{"bound"})
	for _, b := range []bound{
		boundRequests, boundAccountRequests, boundChecks, boundTests, boundKeys, boundSubusers, boundRules, boundWebhooks,
	} {
		s.metrics.refusals.WithLabelValues(string(b))
	}
	gaveWay := with.NewCounterVec(prometheus.CounterOpts{
		Name: "tlsrelay_api_calls_gave_way_total",
		Help: "Calls under way that were ended for one of an account with fewer of them.",
	}, []string{"call"})
	for _, c := range []struct {
		call string
		s    *slots
	}{{"check", &s.checks}, {"webhook_test", &s.tests}} {
		c.s.gaveWay = gaveWay.WithLabelValues(c.call)
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tlsrelay_api_calls_under_way", ConstLabels: prometheus.Labels{"call": c.call},
			Help: "Calls that wait for hosts of the caller's choosing.",
		}, func() float64 { return float64(c.s.len()) })
	}
}

// atBound counts a refusal and gives it back.
func (s *server) atBound(b bound, f *fault) *fault {
	s.metrics.refusals.WithLabelValues(string(b)).Inc()
	return f
}
