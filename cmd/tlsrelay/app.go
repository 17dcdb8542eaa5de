package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"tlsrelay/configs"
	"tlsrelay/events"
	"tlsrelay/events/webhook"
	"tlsrelay/policy"
	"tlsrelay/policy/account"
	"tlsrelay/policy/domain"
	"tlsrelay/relay"
	"tlsrelay/relay/admin"
	"tlsrelay/relay/api"
	"tlsrelay/relay/certificate"
	"tlsrelay/relay/deliver"
	"tlsrelay/relay/queue"
	"tlsrelay/relay/resolve"
	"tlsrelay/relay/store"
	"tlsrelay/relay/submission"
	"tlsrelay/relay/web"
)

// app is the whole relay: every part built from one Config, none started.
type app struct {
	config     configs.Config
	log        *zap.Logger
	metrics    *prometheus.Registry
	store      *store.Store
	resolver   *resolve.Resolver
	engine     *deliver.Engine
	hooks      *webhook.Sender
	queue      *queue.Queue
	submission *submission.Server
	api, admin *httpServer
	maxHTTP    int                 // connections of each
	certs      []*certificate.Pair // all that listeners use
	stopping   atomic.Bool         // no new mail is taken any more
}

// newApp opens the store, builds the parts from the inside out and binds all
// sockets, so that whatever cannot work is known before anything is promised.
func newApp(c configs.Config, log *zap.Logger) (a *app, err error) {
	a = &app{log: log}
	c, a.maxHTTP = fitted(c, openFiles(), log)
	a.config = c
	defer func() {
		if err != nil {
			a.close()
		}
	}()
	reg := prometheus.NewRegistry()
	a.metrics = reg
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if a.store, err = store.Open(store.Options{
		Dir: c.DataDir, MinFreeDisk: c.MinFreeDisk, Retention: c.Retention,
		MaxWaiting: c.Submission.MaxWaiting, MaxDestinations: c.Submission.MaxDestinations, Log: log, Registerer: reg,
	}); err != nil {
		return a, err
	}
	if a.resolver, a.engine, err = newEngine(c, log, reg); err != nil {
		return a, err
	}
	a.hooks = newHooks(c.Webhooks, a.store, log, reg)
	a.queue = a.newQueue(reg)
	calls := a.newCalls(reg)
	if err = a.listenAPI(calls.Public, reg); err != nil {
		return a, err
	}
	if err = a.listenAdmin(calls.Operator, reg); err != nil {
		return a, err
	}
	if err = a.listenSubmission(reg); err != nil {
		return a, err
	}
	a.hooks.Exclude(a.listeners())
	return a, nil
}

// listeners gives the addresses of all sockets that this process listens on, as bound.
func (a *app) listeners() (all []netip.AddrPort) {
	for _, l := range slices.Concat(a.submission.Addrs(), a.submission.AddrsTLS(), []net.Addr{a.api.Addr(), a.admin.Addr()}) {
		if at, ok := l.(*net.TCPAddr); ok {
			all = append(all, at.AddrPort())
		}
	}
	return all
}

// newEngine builds what delivery and the check command share.
func newEngine(c configs.Config, log *zap.Logger, reg prometheus.Registerer) (*resolve.Resolver, *deliver.Engine, error) {
	d := c.Delivery
	resolver, err := resolve.New(resolve.Options{
		Server: d.Resolver, DNSSEC: d.DNSSEC, Port: d.Port, Routes: d.Routes,
		AllowPrivate: d.AllowPrivateAddresses, Hostname: c.Hostname,
		Listening: listening(c.Submission), SourceAddresses: d.SourceAddresses,
	}, reg)
	if err != nil {
		return nil, nil, err
	}
	roots, err := rootPool(d.RootCAFile)
	if err != nil {
		return nil, nil, err
	}
	return resolver, deliver.New(deliver.Options{
		Hostname: c.Hostname, Port: d.Port, Roots: roots, SourceAddresses: d.SourceAddresses,
		OpportunisticMinVersion: d.OpportunisticMinVersion,
		Rules:                   policy.Rules{Window: d.PolicyWindow, ConfirmAfter: d.PolicyConfirmAfter},
		ConnectTimeout:          d.ConnectTimeout, HandshakeTimeout: d.HandshakeTimeout,
		CommandTimeout: d.CommandTimeout, IdleTimeout: d.IdleTimeout,
		MaxConnections: d.MaxConnections, MaxPerHost: d.MaxConnectionsPerDestination,
		MaxRecipientsPerTransaction: d.MaxRecipientsPerTransaction,
		MaxMessages:                 d.MaxMessagesPerConnection, IgnoreKeywords: ignoredKeywords(d.IgnoreKeywords),
	}, resolver, log.Named("deliver"), reg), nil
}

// ignoredKeywords writes names as routes have them and keywords in capitals.
func ignoredKeywords(configured map[string][]string) map[string][]string {
	ignored := make(map[string][]string, len(configured))
	for name, words := range configured {
		rest, below := strings.CutPrefix(name, "*.")
		if d, err := domain.Parse(rest); err == nil {
			if rest = d.String(); below {
				rest = "*." + rest
			}
		}
		for _, w := range words {
			ignored[rest] = append(ignored[rest], strings.ToUpper(w))
		}
	}
	return ignored
}

// listening gives the addresses where mail for the relay itself would arrive,
// by which a mail loop is told from another server on the same machine.
func listening(s configs.Submission) []netip.AddrPort {
	var all []netip.AddrPort
	for _, a := range slices.Concat(s.Listen, s.ListenTLS) {
		if addr, err := net.ResolveTCPAddr("tcp", a); err == nil {
			all = append(all, addr.AddrPort())
		}
	}
	return all
}

// rootPool reads the trusted roots: the file, else the system's. An empty pool is an
// error, because no certificate would be valid.
func rootPool(file string) (*x509.CertPool, error) {
	if file == "" {
		pool, err := x509.SystemCertPool()
		if err != nil || pool.Equal(x509.NewCertPool()) {
			return nil, errors.New("this machine has no trusted root certificates: install ca-certificates, or set delivery.root_ca_file")
		}
		return pool, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("delivery.root_ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("delivery.root_ca_file: no certificate in it")
	}
	return pool, nil
}

func newHooks(c configs.Webhooks, box webhook.Outbox, log *zap.Logger, reg prometheus.Registerer) *webhook.Sender {
	return webhook.New(webhook.Options{
		FlushInterval: c.FlushInterval, FlushBytes: c.FlushBytes,
		RetryAfter: c.RetryAfter, RetryMax: c.RetryMax, RetryFor: c.RetryFor,
		AllowInsecure: c.AllowInsecure,
	}, box, log.Named("webhook"), reg)
}

// delayNotice is after how long a sender that asked for it (DSN, RFC 3461 §4.1) hears of a delay.
const delayNotice = 4 * time.Hour

func (a *app) newQueue(reg prometheus.Registerer) *queue.Queue {
	d := a.config.Delivery
	metrics := events.NewMetrics(reg)
	eventLog := a.log.Named("event")
	tell := func(e *events.Event) {
		metrics.Count(*e)
		eventLog.Info(string(e.Kind), zap.Inline(e))
	}
	return queue.New(queue.Options{
		Schedule: relay.Schedule{
			RetryAfter: d.RetryAfter, RetryMax: d.RetryMax, Lifetime: d.Lifetime, DelayAfter: delayNotice,
		},
		MaxConnections: d.MaxConnections, MaxPerDestination: d.MaxConnectionsPerDestination,
		GuardDomains: d.ViolationGuardDomains, GuardWithin: d.ViolationGuardWithin,
		Hostname: a.config.Hostname,
	}, a.store, a.engine, senders{a.store}, tell, a.log.Named("queue"), reg)
}

func (a *app) listenSubmission(reg prometheus.Registerer) error {
	s := a.config.Submission
	config, err := a.serverTLS(s.CertFile, s.KeyFile)
	if err != nil {
		return fmt.Errorf("submission: %w", err)
	}
	a.submission = submission.New(submission.Options{
		Hostname: a.config.Hostname, Listen: s.Listen, ListenTLS: s.ListenTLS, TLS: config,
		AllowPlaintextAuth: s.AllowPlaintextAuth, Trusted: s.TrustedNetworks,
		RefuseBareNewlines: s.BareNewlines == "refuse",
		MaxMessageBytes:    s.MaxMessageBytes, MaxRecipients: s.MaxRecipients,
		MaxConnections: s.MaxConnections, MaxPerIP: s.MaxConnectionsPerIP, Admit: a.store.Admit,
		MaxStrangersPerIP: s.MaxStrangersPerIP, LoginTimeout: s.LoginTimeout, ProxyProtocol: s.ProxyProtocol,
		AuthFailuresPerMinute: s.AuthFailuresPerMinute, IdleTimeout: s.IdleTimeout,
	}, a.queue, a.store, a.log.Named("submission"), reg)
	return a.submission.Listen()
}

// serverTLS makes the TLS side of a listener: the given files, re-read when
// they change, or a self-signed certificate kept in the data directory.
func (a *app) serverTLS(cert, key string) (*tls.Config, error) {
	if cert == "" {
		var err error
		listen := slices.Concat(a.config.Submission.Listen, a.config.Submission.ListenTLS)
		if cert, key, err = certificate.SelfSigned(a.config.DataDir, a.config.Hostname, listen...); err != nil {
			return nil, err
		}
	}
	c, err := certificate.Load(cert, key, a.log.Named("tls"))
	if err != nil {
		return nil, err
	}
	a.certs = append(a.certs, c)
	return c.TLS(), nil
}

// rereadCertificates is what SIGHUP asks for. Nothing else is opened again:
// connections, queue and log go on as they are.
func (a *app) rereadCertificates() {
	var read, kept []string
	var errs []error
	for _, c := range a.certs {
		if err := c.Reread(); err != nil {
			kept, errs = append(kept, c.File()), append(errs, err)
		} else {
			read = append(read, c.File())
		}
	}
	if len(errs) > 0 {
		a.log.Warn("SIGHUP: certificates could not be read again, the old ones stay in use",
			zap.Strings("read", read), zap.Strings("kept", kept), zap.Errors("errors", errs))
		return
	}
	a.log.Info("SIGHUP: certificates read again", zap.Strings("read", read))
}

// newCalls makes the calls of both HTTP listeners.
func (a *app) newCalls(reg prometheus.Registerer) api.Handlers {
	return api.New(api.Options{
		RequestsPerMinute: a.config.API.RequestsPerMinute, AllowInsecureWebhooks: a.config.Webhooks.AllowInsecure,
		SourceAddresses: a.config.Delivery.SourceAddresses,
	}, api.Deps{
		Accounts: a.accounts(), Overrides: a.store, Webhooks: a.store, Blocks: a.store, Messages: a.store,
		Checker: checker{a.engine}, Tester: a.hooks, Queue: a.queue,
		Lanes:     func(limit int) (any, int) { return a.queue.SomeDestinations(limit) },
		Endpoints: func() any { return a.hooks.Status() },
		Log:       a.log.Named("api"),
	}, reg)
}

func (a *app) listenAPI(handler http.Handler, reg prometheus.Registerer) (err error) {
	c := a.config.API
	var config *tls.Config
	if c.CertFile != "" {
		if config, err = a.serverTLS(c.CertFile, c.KeyFile); err != nil {
			return fmt.Errorf("api: %w", err)
		}
	}
	a.api, err = a.listenHTTP(web.Options{
		Name: "api", Listen: c.Listen, TLS: config, Holds: func(ctx context.Context, secret string) error {
			_, _, err := account.Authenticate(ctx, a.store, secret)
			return err
		},
	}, handler, reg)
	return err
}

func (a *app) listenHTTP(o web.Options, h http.Handler, reg prometheus.Registerer) (*httpServer, error) {
	o.MaxConnections, o.AuthFailuresPerMinute = a.maxHTTP, a.config.Submission.AuthFailuresPerMinute
	s, err := web.Listen(o, h, a.log.Named(o.Name), reg)
	if err != nil {
		return nil, err
	}
	return &httpServer{s}, nil
}

// adminWriteTime is how long a call of the operator may take: one can act on a million
// messages. Profiles have as much more as they ask for.
const adminWriteTime = 10 * time.Minute

func (a *app) listenAdmin(calls http.Handler, reg prometheus.Registerer) (err error) {
	c := a.config.Admin
	var config *tls.Config
	if c.CertFile != "" {
		if config, err = a.serverTLS(c.CertFile, c.KeyFile); err != nil {
			return fmt.Errorf("admin: %w", err)
		}
	}
	handler := admin.New(admin.Options{Listen: c.Listen, Token: c.Token, Hosts: c.Hosts}, admin.Deps{
		Calls: calls, Store: a.store, Ready: a.ready, Metrics: a.metrics, Log: a.log.Named("admin"),
	})
	a.admin, err = a.listenHTTP(web.Options{Name: "admin", Listen: c.Listen, TLS: config, WriteTime: adminWriteTime}, handler, reg)
	return err
}

// ready says which part keeps mail from being taken, in words that are nobody's
// secret. While the relay drains, its listeners are closed already.
func (a *app) ready() admin.Readiness {
	troubles := map[string]string{"submission": "", "store": "", "disk": ""}
	if a.stopping.Load() {
		troubles["submission"] = "stopping: no mail is taken any more"
	}
	if a.store.Ready() != nil {
		troubles["store"] = "cannot be read or written: mail is put off"
	} else if a.store.Room() != nil {
		troubles["disk"] = "less than min_free_disk is free: all mail is answered 452 4.3.1"
	}
	return admin.Readiness{Troubles: troubles, DNSSEC: a.resolver.DNSSEC()}
}

// run runs every part until ctx ends or one of them fails. Mail stops coming
// in first, and the store closes last.
func (a *app) run(ctx context.Context, started func()) error {
	parts := startParts(ctx,
		part{"store", a.store.Run},
		part{"resolver", a.resolver.Run},
		part{"delivery", a.engine.Run},
		part{"webhooks", a.hooks.Run},
		part{"queue", a.queue.Run},
		part{"admin", a.admin.Run},
		part{"api", a.api.Run},
		part{"submission", a.submission.Run},
	)
	started()
	select {
	case <-ctx.Done():
		a.log.Info("stopping: finishing what has begun")
	case err := <-parts.failed:
		a.log.Error("a part of the relay failed; stopping", zap.Error(err))
	}
	a.stopping.Store(true)
	return errors.Join(parts.stop(), a.close())
}

// close releases what newApp took and run has not.
func (a *app) close() error {
	for _, s := range []*httpServer{a.api, a.admin} {
		if s != nil {
			s.Close()
		}
	}
	if a.store != nil {
		return a.store.Close()
	}
	return nil
}

// senders finds what a message's account demands of a destination.
type senders struct{ store *store.Store }

func (s senders) Sender(ctx context.Context, m relay.Message, destination string) (policy.Sender, error) {
	if m.Report {
		return policy.Sender{}, nil // a report goes out opportunistically
	}
	a, err := s.store.Account(ctx, m.Account)
	switch {
	case err != nil:
		return policy.Sender{}, err
	case a.Disabled:
		return policy.Sender{}, account.ErrDisabled
	}
	return account.SenderTo(ctx, s.store, m.Account, destination, time.Now())
}

// accounts is the store of accounts as its callers have it: the queue of one that is
// enabled again goes on at once.
type accounts struct {
	*store.Store
	queue *queue.Queue
	log   *zap.Logger
}

func (a *app) accounts() accounts { return accounts{a.store, a.queue, a.log} }

// UpdateAccount implements account.Store.
func (a accounts) UpdateAccount(ctx context.Context, id account.ID, change func(*account.Account) error) (account.Account, error) {
	was := false
	changed, err := a.Store.UpdateAccount(ctx, id, func(x *account.Account) error {
		was = x.Disabled
		return change(x)
	})
	if err != nil || !was || changed.Disabled {
		return changed, err
	}
	// The account is enabled, whoever waits for the rest, and whatever comes of it: what
	// is not made due now is so a little later by itself.
	n, failed := a.Store.Act(context.WithoutCancel(ctx), relay.ActRetry, relay.Selection{Account: id}, time.Now())
	if failed != nil {
		a.log.Error("the queue of an account that is enabled again goes on later", zap.String("account", string(id)), zap.Error(failed))
	}
	if n > 0 {
		a.queue.Rescan()
	}
	return changed, nil
}

// checker answers the calls that check a domain.
type checker struct{ engine *deliver.Engine }

func (c checker) Check(ctx context.Context, destination string, s policy.Sender) (any, error) {
	return c.engine.Probe(ctx, destination, s), nil
}
