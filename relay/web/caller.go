package web

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
	"tlsrelay/relay/places"
)

const closing = "Connection"

// handler serves requests, and ends connections that have shown no key with their
// answer. net/http has one request at a time on each connection.
func (s *Server) handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := from(r)
		if !c.known.Load() {
			w.Header().Set(closing, "close")
		}
		defer func() {
			s.finished(c)
			if w.Header().Get(closing) == "close" {
				// net/http would wait for the rest of the body all the same.
				_ = c.SetReadDeadline(time.Now().Add(lingerTime))
			}
			// Requests that come without a pause never wait, and would keep the
			// processor from all others for ten milliseconds at a time.
			runtime.Gosched()
		}()
		h.ServeHTTP(w, r)
	})
}

// Shown says that a request came with a right key: its connection has a place among
// those of the account now, and stays open. false: the account has as many requests
// under way as it may, or there is no place for another connection of it, and the
// request is to be refused (429).
func Shown(w http.ResponseWriter, r *http.Request, who account.ID, secret string) bool {
	c := from(r)
	if c == nil {
		return true
	}
	if !c.known.Load() || c.who != who || c.secret != secret {
		if cause := c.s.places.Login(&c.seat, who, secret, time.Now()); cause != "" {
			if cause != "gave_way" { // else it is counted
				c.s.shortOf(places.Loss{Cause: cause, IP: c.ip, Who: who})
			}
			w.Header().Set(closing, "close")
			return false
		}
		c.who, c.secret = who, secret
	}
	if !c.s.begun(c) {
		c.s.shortOf(places.Loss{Cause: "account_requests", IP: c.ip, Who: who})
		w.Header().Set(closing, "close") // else net/http would wait for the body
		return false
	}
	w.Header().Del(closing)
	return true
}

// Denied says that a request came without a right key, and is to be refused (401). It
// holds that up where too many of its source do, and the answer ends the connection.
func Denied(w http.ResponseWriter, r *http.Request) {
	c := from(r)
	if c == nil {
		return
	}
	w.Header().Set(closing, "close")
	c.denied.Store(true)
	s := c.s
	s.metrics.authFailures.Inc()
	slowed, begins := s.failures.Failed(c.ip, time.Now(), true)
	if begins {
		s.log.Warn("too many requests without a right key: they are answered slowly until none comes for a minute",
			zap.Stringer("client", c.ip), zap.Stringer("source", places.Source(c.ip)))
	}
	if slowed {
		s.metrics.rejected.WithLabelValues("auth_failures").Inc()
		s.failures.Hold(r.Context(), c.ip)
	}
}

// begun counts a request in; false: its account has as many under way as it may.
func (s *Server) begun(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under[c.who] >= s.o.maxRequests {
		return false
	}
	s.under[c.who]++
	c.counted = c.who
	c.work(s.o.busyTime)
	return true
}

// finished counts it out again.
func (s *Server) finished(c *conn) {
	if c.counted == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under[c.counted]--; s.under[c.counted] == 0 {
		delete(s.under, c.counted)
	}
	c.counted = ""
	c.work(flushTime)
}

// endKeys ends the connections of keys and accounts that have ended. A request that has
// just begun was asked for in time, and has its answer first.
func (s *Server) endKeys(ctx context.Context) {
	if s.o.Holds == nil {
		return
	}
	for with, conns := range s.places.Logins() {
		if !errors.Is(s.o.Holds(ctx, with.Secret), account.ErrDenied) {
			continue // it is good, or the store cannot say
		}
		n := 0
		for _, c := range conns {
			if c.Overdue() {
				c.(*conn).Close()
				n++
			}
		}
		if n > 0 {
			s.metrics.rejected.WithLabelValues("key_ended").Add(float64(n))
			s.log.Info("connections ended with their key or account",
				zap.String("account", string(with.Who)), zap.Int("connections", n))
		}
	}
}
