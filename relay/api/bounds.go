package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"tlsrelay/policy/account"
	"tlsrelay/relay/api/hooks"
	"tlsrelay/relay/api/rest"
)

// What an account can make grow through the API, or keep waiting, and what bounds it.
// An answer at a bound is counted in tlsrelay_api_bound_refusals_total by the name in
// the first column.
//
//	requests          of a key, requests_per_minute; 429      caller.go, rest/limit.go
//	account_requests  of an account, all keys: ten times
//	                  that of a key; 429                      caller.go, rest/limit.go
//	checks            under way: 4 of an account, 64 of all;
//	                  each ends after two minutes; 429        check.go, rest/slots.go
//	webhook_tests     under way: 2 of an account, 32 of all;
//	                  each ends after ten seconds; 429        hooks/test.go, rest/slots.go
//	lists             calls on the block list: 2 of an account
//	                  and 16 of all at a time; others wait for
//	                  up to ten seconds; 429                  rest/turns.go
//	keys              100 of an account; 403                  policy/account/bounds.go
//	subusers          100,000 accounts in all; 403            policy/account/bounds.go
//	domain_rules      10,000 of an account, 1,000,000 of all,
//	                  and 100 of each in any case; 403        policy/account/bounds.go
//	webhooks          5 of an account, each with its own URL;
//	                  400                                     events/webhook/endpoint.go
//
// Nothing but the size of a field or a body bounds what is stored once: settings, the
// name of a key (255 octets) and its scopes (those there are, each once), username
// (64), email (254), the URLs (2,048), OAuth fields (1,024), friendly name (255) and
// signing key of a webhook, the reason of a rule (1,000). A body has at most 8 KiB,
// 64 KiB with a list of scopes or addresses of this relay, or 1 MiB with a list of
// blocks; larger ones are 413. Addresses in a removal of blocks that
// are not in the list cost no write. Access tokens: events/webhook/oauth.go. Mail:
// relay/submission and relay/store. The operator has 16 checks of its own.
const (
	boundRequests        = "requests"
	boundAccountRequests = "account_requests"
	boundChecks          = "checks"
	boundTests           = "webhook_tests"
	boundLists           = "lists"
	boundKeys            = "keys"
	boundSubusers        = "subusers"
	boundRules           = "domain_rules"
)

const (
	// maxKeys is how many keys an account may have.
	maxKeys = account.MaxKeys
	// checkTimeout is how long a check takes at most.
	checkTimeout = 2 * time.Minute
	// accountShare is how many times the requests of one key all keys of an account
	// may make in a minute.
	accountShare = 10
)

// counters of requests, and of answers at a bound.
type counters struct{ requests, bounds *prometheus.CounterVec }

// newMetrics makes the counters with the series of all bounds, and those of s's slots.
func (s *server) newMetrics(reg prometheus.Registerer) counters {
	with := promauto.With(reg)
	c := counters{
		with.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_api_requests_total",
			Help: "Requests to the public API and calls of the operator, by route and status code.",
		}, []string{"route", "code"}),
		with.NewCounterVec(prometheus.CounterOpts{
			Name: "tlsrelay_api_bound_refusals_total",
			Help: "Requests that were refused because a key, an account or all accounts have as much as they may have.",
		}, []string{"bound"}),
	}
	for _, bound := range []string{
		boundRequests, boundAccountRequests, boundChecks, boundTests, boundLists, boundKeys, boundSubusers, boundRules, hooks.Bound,
	} {
		c.bounds.WithLabelValues(bound)
	}
	gaveWay := with.NewCounterVec(prometheus.CounterOpts{
		Name: "tlsrelay_api_calls_gave_way_total",
		Help: "Calls under way that were ended for one of an account with fewer of them.",
	}, []string{"call"})
	for call, slots := range map[string]*rest.Slots{"check": s.checks, "webhook_test": s.tests} {
		slots.GaveWay = gaveWay.WithLabelValues(call)
		with.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tlsrelay_api_calls_under_way", ConstLabels: prometheus.Labels{"call": call},
			Help: "Calls that wait for hosts of the caller's choosing.",
		}, func() float64 { return float64(slots.Len()) })
	}
	return c
}
