package submission

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"tlsrelay/relay/places"
	"tlsrelay/relay/submission/limit"
	"tlsrelay/relay/submission/wire"
)

// Server accepts mail. Make it with [New], bind its sockets with
// [Server.Listen], serve with [Server.Run].
type Server struct {
	o        Options
	in       Intake
	accounts Accounts
	log      *zap.Logger
	metrics  *metrics
	failures *places.Failures
	smtp     *smtp.Server
	wire     wire.Config
	handoff  *handoff

	listeners  []listener
	places     *places.Pool
	seldom     places.Seldom
	memory     *limit.Memory
	recipients limit.Recipients

	// content is the context of Intake.Accept. It outlives that of Run until the
	// drain is over, so that messages in progress are finished.
	content context.Context
	abandon context.CancelFunc

	mu       sync.Mutex
	conns    map[*wire.Conn]struct{}
	unnamed  map[*peer]struct{} // their PROXY headers are awaited
	draining bool
	headers  sync.WaitGroup // readers of PROXY headers
	bodies   sync.WaitGroup // calls of Data: go-smtp does not wait for those of BDAT
	closed   bool           // there shall be no further call of Data
}

// chance is how long a stranger keeps its place from others of its own source: a
// login takes a few round trips.
const chance = 5 * time.Second

// New makes a server that does nothing yet. reg may be nil.
func New(o Options, in Intake, accounts Accounts, log *zap.Logger, reg prometheus.Registerer) *Server {
	o = o.withDefaults()
	s := &Server{
		o: o, in: in, accounts: accounts, log: log,
		metrics:  newMetrics(reg),
		failures: places.NewFailures(o.AuthFailuresPerMinute, o.slowAnswer),
		handoff:  newHandoff(),
		conns:    make(map[*wire.Conn]struct{}),
		unnamed:  make(map[*peer]struct{}),
		places: places.New(places.Limits{
			Total: o.MaxConnections, PerIP: o.MaxPerIP, StrangersPerIP: o.MaxStrangersPerIP,
			ShowTime: o.LoginTimeout, Chance: chance,
		}),
		memory: limit.NewMemory(o.contentMemory),
	}
	s.bounds(reg)
	s.content, s.abandon = context.WithCancel(context.Background())
	s.smtp = s.newSMTP()
	s.wire = wire.Config{
		Hostname: o.Hostname, TLS: o.TLS, AllowPlaintextAuth: o.AllowPlaintextAuth,
		MaxMessageBytes: o.MaxMessageBytes, IdleTimeout: o.IdleTimeout,
		Adopt: s.adopt, Closed: s.forget, Handshake: s.metrics.handshake,
	}
	return s
}

// newSMTP makes go-smtp's server. It never sees TLS: that is below wire.
func (s *Server) newSMTP() *smtp.Server {
	g := smtp.NewServer(smtp.BackendFunc(s.newSession))
	g.Domain = s.o.Hostname
	g.MaxRecipients = 0 // it does not know all of them (session.keep)
	g.MaxMessageBytes = s.o.MaxMessageBytes
	g.MaxLineLength = 0 // it would count content, too; wire bounds commands
	g.AllowInsecureAuth = true
	g.EnableSMTPUTF8, g.EnableREQUIRETLS, g.EnableDSN = true, true, true
	g.ErrorLog = quietLog{s.log}
	return g
}

// Listen binds all sockets. Clients can connect from then on, and wait for Run.
// After an error nothing is bound.
func (s *Server) Listen() error {
	bind := func(addrs []string, implicit bool) error {
		for _, a := range addrs {
			l, err := net.Listen("tcp", a)
			if err != nil {
				return err
			}
			s.listeners = append(s.listeners, listener{l, implicit})
		}
		return nil
	}
	if len(s.o.ListenTLS) > 0 && s.o.TLS == nil {
		return errors.New("submission: implicit TLS needs a certificate")
	}
	err := bind(s.o.Listen, false)
	if err == nil {
		err = bind(s.o.ListenTLS, true)
	}
	if err != nil {
		s.closeListeners()
		s.listeners = nil
	}
	return err
}

// Addrs gives the bound addresses of Options.Listen, in their order.
func (s *Server) Addrs() []net.Addr { return s.addrs(false) }

// AddrsTLS gives the bound addresses of Options.ListenTLS, in their order.
func (s *Server) AddrsTLS() []net.Addr { return s.addrs(true) }

func (s *Server) addrs(implicit bool) []net.Addr {
	var all []net.Addr
	for _, l := range s.listeners {
		if l.implicit == implicit {
			all = append(all, l.Addr())
		}
	}
	return all
}

// Run serves until ctx ends. Then it accepts no more connections, replies 421 to
// idle clients, gives transactions in progress DrainTimeout to finish, and closes
// the rest. It returns when nothing runs any more: nil, or why it could not serve.
func (s *Server) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	failed := make(chan error, len(s.listeners)+1)
	loops.Go(func() { failed <- s.smtp.Serve(s.handoff) })
	var watcher sync.WaitGroup
	defer watcher.Wait()
	stop := make(chan struct{})
	defer close(stop)
	watcher.Go(func() { s.watch(stop) })
	for _, l := range s.listeners {
		loops.Go(func() { failed <- s.acceptLoop(ctx, l) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.closeListeners()
	s.handoff.Close()
	loops.Wait() // after this no conversation begins
	s.drain()
	return err
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		l.Close()
	}
}

// drain ends all conversations. go-smtp's Shutdown only waits, and its Close does
// nothing after it, so we tell the clients and close the sockets.
func (s *Server) drain() {
	s.failures.Close()
	s.mu.Lock()
	s.draining = true
	for c := range s.conns {
		c.Drain()
	}
	for p := range s.unnamed {
		p.Close()
	}
	s.mu.Unlock()
	s.headers.Wait()

	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.smtp.Shutdown(context.Background()) // waits for every conversation
	}()
	timer := time.AfterFunc(s.o.DrainTimeout, s.cutOff)
	<-done
	timer.Stop()
	s.abandon()

	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.bodies.Wait()
}

// cutOff closes every connection, and ends every call of Intake.
func (s *Server) cutOff() {
	s.abandon()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Socket.Close()
	}
}

// adopt gives c to go-smtp. It returns false when the server is stopping.
func (s *Server) adopt(c *wire.Conn) bool {
	s.mu.Lock()
	s.conns[c] = struct{}{}
	if s.draining {
		c.Drain()
	}
	s.mu.Unlock()
	if s.handoff.give(c) {
		return true
	}
	s.forget(c)
	return false
}

func (s *Server) forget(c *wire.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
}

// beginBody counts a call of Data. It returns false when the server has stopped.
func (s *Server) beginBody() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.bodies.Add(1)
	return true
}

// quietLog logs what go-smtp logs, at debug level only: it may quote a client.
type quietLog struct{ log *zap.Logger }

func (q quietLog) Printf(format string, v ...any) {
	q.log.Sugar().Debugf(format, v...)
}

func (q quietLog) Println(v ...any) { q.log.Sugar().Debugln(v...) }
