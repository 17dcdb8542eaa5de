package submission

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"tlsrelay/policy/account"
)

// watch ends the sessions of keys and accounts that have ended, until done is closed.
// Without it a client that only waits, or sends content very slowly, would stay: it
// gives no command that would be refused. Messages that have their 250 are delivered.
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

// endSessions checks every key that sessions have logged in with.
func (s *Server) endSessions() {
	for with, conns := range s.places.Logins() {
		_, key, err := account.Authenticate(context.Background(), s.accounts, with.Secret)
		if !errors.Is(err, account.ErrDenied) && (err != nil || key.Allows(account.MailSend)) {
			continue // it is good, or the store cannot say
		}
		n := 0
		for _, c := range conns {
			if c.(*peer).eject(s.partingReply("key_ended")) {
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
