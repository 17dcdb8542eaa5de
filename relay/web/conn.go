package web

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"tlsrelay/policy/account"
	"tlsrelay/relay/places"
	"tlsrelay/relay/unread"
)

// conn is one connection, below TLS. net/http sets its deadlines; a stranger's never
// go beyond the end of its time.
type conn struct {
	net.Conn
	s    *Server
	ip   netip.Addr
	came time.Time
	seat places.Seat

	// Of the goroutine that answers: what it has shown, and who its request is counted
	// for while it is under way.
	who     account.ID
	secret  string
	counted account.ID // "": not

	known  atomic.Bool  // it has shown a key
	denied atomic.Bool  // it has shown a wrong one, or none where one was due
	busy   atomic.Int64 // until when it is left to its work, in Unix nanoseconds; 0: it has none

	mu          sync.Mutex
	showBy      time.Time // zero: no end
	read, write time.Time // the deadlines of net/http; zero: none
	told        bool      // it is counted as late

	closed sync.Once
}

// ShowBy implements places.Conn.
func (c *conn) ShowBy(t time.Time) {
	c.known.Store(t.IsZero())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.showBy = t
	_ = c.Conn.SetReadDeadline(c.inTime(c.read))
	_ = c.Conn.SetWriteDeadline(c.inTime(c.write))
}

// Resting implements places.Conn.
func (c *conn) Resting() bool { return c.busy.Load() == 0 }

// Overdue implements places.Conn. A request that takes long waits for its client, as
// a rule: for the rest of the body, or until the answer is read.
func (c *conn) Overdue() bool { return time.Now().UnixNano() >= c.busy.Load() }

// Asks implements places.Conn: not once its key was wrong, for that answer may take
// seconds.
func (c *conn) Asks() bool { return !c.denied.Load() && (!c.Overdue() || unread.Has(c.Conn)) }

// work leaves the connection to its work for a while.
func (c *conn) work(d time.Duration) { c.busy.Store(time.Now().Add(d).UnixNano()) }

// GiveWay implements places.Conn. A client that has not asked yet could not tell an
// answer from one to its next request (RFC 9112 §9.3.2), so that there is none.
func (c *conn) GiveWay(l places.Loss) {
	c.s.shortOf(l)
	c.Close()
}

// inTime is a deadline, or the end of a stranger's time where that comes first.
func (c *conn) inTime(t time.Time) time.Time {
	if !c.showBy.IsZero() && (t.IsZero() || c.showBy.Before(t)) {
		return c.showBy
	}
	return t
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(c.inTime(t))
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.Conn.SetWriteDeadline(c.inTime(t))
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.known.Load() {
		c.work(shownWithin)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && !c.known.Load() && c.late() {
		c.s.metrics.rejected.WithLabelValues("login_timeout").Inc()
	}
	return n, err
}

// late reports, once, whether a stranger's time has passed. net/http ends reads of its
// own by deadlines from before anything began.
func (c *conn) late() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told || c.inTime(c.read).Before(c.came) {
		return false
	}
	c.told = true
	return true
}

// CloseWrite lets net/http say that nothing more comes, before it closes.
func (c *conn) CloseWrite() error {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return t.CloseWrite()
	}
	return nil
}

// Close implements net.Conn, also under the hands of another goroutine.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.closed.Do(func() {
		err = c.Conn.Close()
		c.s.places.Leave(&c.seat)
		c.s.metrics.open.Dec()
	})
	return err
}

// connKey is where a request's context has its connection.
type connKey struct{}

// remember is for http.Server.ConnContext.
func remember(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, below(c))
}

// noteState is for http.Server.ConnState.
func noteState(c net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		below(c).busy.Store(0)
	}
}

// below gives the connection that net/http has, perhaps in TLS.
func below(c net.Conn) *conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = t.NetConn()
	}
	return c.(*conn)
}

// from gives the connection of a request; nil: it came in another way, as in tests.
func from(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}
