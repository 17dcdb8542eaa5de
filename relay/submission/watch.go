package submission

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
)

// watch ends, until done, the sessions of keys and accounts that have ended: a
// client that only waits, or sends content as slowly as it likes, asks for nothing
// that would be refused. What has its 250 goes on.
func (s *Server) watch(done <-chan struct{}) {
	tick := time.NewTicker(s.o.lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.endSessions()
		case <-done:
			return
		}
	}
}

// endSessions asks about every key that sessions are open with.
func (s *Server) endSessions() {
	for with, conns := range s.places.Logins() {
		_, key, err := account.Authenticate(context.Background(), s.accounts, with.Secret)
		if !errors.Is(err, account.ErrDenied) && (err != nil || key.Allows(account.MailSend)) {
			continue // it is good, or the store cannot say
		}
		n := 0
		for _, c := range conns {
			if c.(*peer).eject(s.words("key_ended")) {
				s.metrics.rejected.WithLabelValues("key_ended").Inc()
				n++
			}
		}
		if n > 0 {
			s.log.Info("sessions ended with their key or account",
				zap.String("account", string(with.Who)), keyField(with.Secret), zap.Int("sessions", n))
		}
	}
}
