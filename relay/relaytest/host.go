package relaytest

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Host is a receiving mail host with a script, and everything it saw. Its
// methods are safe for concurrent use.
type Host struct {
	name string
	ca   *CA
	ln   net.Listener // nil: refuses connections
	addr netip.AddrPort
	done chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	acts     []act
	open     map[net.Conn]struct{}
	sessions []*Session
	messages []Message
	uses     map[string]int // of scripted replies with Times
	changed  chan struct{}  // closed and replaced when anything above grows

	connections, handshakes, resumed, accepted, octets atomic.Int64
}

// act is a script, ready to be played.
type act struct {
	script *Script
	tls    *tls.Config
}

// Session is what one connection to a host was like.
type Session struct {
	Number   int // from 0
	Remote   netip.AddrPort
	Commands []Command
	Clear    string // every octet read outside TLS, ClientHellos excepted
	Hello    *Hello // the first ClientHello; nil: none came
	// TLS is the state after a completed handshake.
	TLS          *tls.ConnectionState
	HandshakeErr error
	// Breaches of protocol by the client: a parameter that was not listed, a
	// bare LF, a line over 1000 octets, pipelining that was not offered.
	Breaches []string
	Ended    bool
}

// Command is one command line without its CRLF.
type Command struct {
	Line string
	TLS  bool // it came inside TLS
}

// Message is one accepted message.
type Message struct {
	Session    int // Session.Number
	At         time.Time
	Helo       string
	From       string // as it stood between < and >
	MailParams []string
	To         []Recipient
	Body       []byte // without dot-stuffing
	Chunked    bool   // it came by BDAT
	TLSVersion uint16 // 0: in clear
	Resumed    bool   // the TLS session was
}

// Recipient is one accepted RCPT.
type Recipient struct {
	Address string // as it stood between < and >
	Params  []string
}

// newHost listens at addr and plays scripts: one per connection, the last
// one for all that follow.
func newHost(name string, addr netip.AddrPort, ca *CA, scripts []Script) (*Host, error) {
	h := &Host{
		name: name, ca: ca, done: make(chan struct{}),
		open: map[net.Conn]struct{}{}, uses: map[string]int{}, changed: make(chan struct{}),
	}
	if err := h.SetScript(scripts...); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	h.ln = ln
	h.addr = ln.Addr().(*net.TCPAddr).AddrPort()
	h.wg.Go(h.accept)
	return h, nil
}

// SetScript changes what the next connections meet.
func (h *Host) SetScript(scripts ...Script) error {
	if len(scripts) == 0 {
		scripts = []Script{{}}
	}
	acts := make([]act, len(scripts))
	for i := range scripts {
		s := scripts[i]
		cfg, err := s.TLS.config(h.name, h.ca)
		if err != nil {
			return fmt.Errorf("certificate of %s: %w", h.name, err)
		}
		acts[i] = act{&s, cfg}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acts = acts
	clear(h.uses)
	return nil
}

func (h *Host) accept() {
	for {
		c, err := h.ln.Accept()
		if err != nil {
			return
		}
		number := int(h.connections.Add(1)) - 1
		h.mu.Lock()
		if isClosed(h.done) {
			h.mu.Unlock()
			c.Close()
			return
		}
		a := h.acts[0]
		if len(h.acts) > 1 {
			h.acts = h.acts[1:]
		}
		h.open[c] = struct{}{}
		s := newSession(h, c, a, number, len(h.open))
		if !a.script.Discard {
			h.sessions = append(h.sessions, s.rec)
		}
		h.signal()
		h.mu.Unlock()
		h.wg.Go(func() {
			defer h.forget(c, s.rec)
			s.run()
		})
	}
}

func (h *Host) forget(c net.Conn, rec *Session) {
	c.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, c)
	rec.Ended = true
	h.signal()
}

// signal wakes everyone who waits; h.mu is held.
func (h *Host) signal() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Close hangs up on everybody and stops listening.
func (h *Host) Close() {
	h.mu.Lock()
	if isClosed(h.done) {
		h.mu.Unlock()
		return
	}
	close(h.done)
	if h.ln != nil {
		h.ln.Close()
	}
	for c := range h.open {
		c.Close()
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// HangUp closes every open connection, as a restart of the host would.
func (h *Host) HangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.open {
		c.Close()
	}
}

// Name is the host's name.
func (h *Host) Name() string { return h.name }

// Addr is where the host listens, or would.
func (h *Host) Addr() netip.AddrPort { return h.addr }

// Connections counts connections accepted so far.
func (h *Host) Connections() int { return int(h.connections.Load()) }

// Handshakes counts completed TLS handshakes, Resumed those that resumed a
// session.
func (h *Host) Handshakes() int { return int(h.handshakes.Load()) }

// Resumed counts completed handshakes that resumed a session.
func (h *Host) Resumed() int { return int(h.resumed.Load()) }

// Accepted counts messages answered with 2xx, Octets their bodies.
func (h *Host) Accepted() int { return int(h.accepted.Load()) }

// Octets counts the octets of all bodies.
func (h *Host) Octets() int64 { return h.octets.Load() }

// Open counts connections open now.
func (h *Host) Open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}

// Messages are the messages accepted so far; none under Script.Discard.
func (h *Host) Messages() []Message {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.messages)
}

// Sessions are the connections so far, as they stand now.
func (h *Host) Sessions() []Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Session, len(h.sessions))
	for i, s := range h.sessions {
		all[i] = *s
		all[i].Commands = slices.Clone(s.Commands)
		all[i].Breaches = slices.Clone(s.Breaches)
	}
	return all
}

// ClearCommands gives the verbs that came outside TLS, in order, over all
// connections.
func (h *Host) ClearCommands() []string {
	var verbs []string
	for _, s := range h.Sessions() {
		for _, c := range s.Commands {
			if !c.TLS {
				verb, _, _ := strings.Cut(c.Line, " ")
				verbs = append(verbs, strings.ToUpper(verb))
			}
		}
	}
	return verbs
}

// LeakedInClear reports whether any octet of a transaction travelled outside
// TLS: a MAIL, RCPT, DATA or BDAT command, whole or in part.
func (h *Host) LeakedInClear() bool {
	for _, s := range h.Sessions() {
		upper := strings.ToUpper(s.Clear)
		for _, verb := range []string{"MAIL", "RCPT", "DATA", "BDAT"} {
			if strings.HasPrefix(upper, verb) || strings.Contains(upper, "\n"+verb) {
				return true
			}
		}
	}
	return false
}

// Breaches lists the breaches of protocol of all connections.
func (h *Host) Breaches() []string {
	var all []string
	for _, s := range h.Sessions() {
		all = append(all, s.Breaches...)
	}
	return all
}

// Wait waits until n messages were accepted in all and gives those it kept.
func (h *Host) Wait(ctx context.Context, n int) ([]Message, error) {
	err := h.WaitFor(ctx, func() bool { return h.Accepted() >= n })
	if err != nil {
		err = fmt.Errorf("%s: %d of %d messages: %w", h.name, h.Accepted(), n, err)
	}
	return h.Messages(), err
}

// WaitFor waits until cond holds. cond is asked again whenever a connection
// comes or ends, a handshake completes, a command is given or a message is
// accepted.
func (h *Host) WaitFor(ctx context.Context, cond func() bool) error {
	for {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		if cond() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// scripted gives r while it has Times left under key, the normal answer after.
func (h *Host) scripted(key string, r Reply) Reply {
	if r.Times == 0 {
		return r
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.uses[key]++; h.uses[key] > r.Times {
		return Reply{}
	}
	return r
}

func isClosed(done chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
