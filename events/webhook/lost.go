package webhook

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// lost counts events that were given up and that the log has not reported yet.
type lost struct {
	events int
	oldest time.Time
	told   time.Time // when the last report was
}

// tellEvery is the least time between two reports of an endpoint or an account, because
// events may be lost one by one.
const tellEvery = time.Minute

// due reports whether it is time for a report.
func (l *lost) due() bool { return time.Since(l.told) >= tellEvery }

// add counts n more, and reports whether it is time for a report.
func (l *lost) add(n int, oldest time.Time) bool {
	if l.events == 0 {
		l.oldest = oldest
	}
	l.events += n
	return l.due()
}

// tell returns what to report, and counts from 0 again.
func (l *lost) tell() (n int, oldest time.Time) {
	n, oldest = l.events, l.oldest
	if n > 0 {
		*l = lost{told: time.Now()}
	}
	return n, oldest
}

// shed counts the events that the outbox gave up because too many of an account waited.
// An account is in it until all of its events are reported.
type shed struct {
	mu       sync.Mutex
	accounts map[string]*lost
}

// shedOf notes that the outbox gave up events of an account.
func (s *Sender) shedOf(account string, n int, oldest time.Time) {
	s.m.dropped.WithLabelValues(dropOverflow).Add(float64(n))
	s.shed.mu.Lock()
	defer s.shed.mu.Unlock()
	if s.shed.accounts == nil {
		s.shed.accounts = make(map[string]*lost)
	}
	l := s.shed.accounts[account]
	if l == nil {
		l = &lost{}
		s.shed.accounts[account] = l
	}
	if l.add(n, oldest) {
		s.tellShed(account, l)
	}
}

// tellAllShed reports what has not been reported, of all accounts or of those whose time
// has come.
func (s *Sender) tellAllShed(all bool) {
	s.shed.mu.Lock()
	defer s.shed.mu.Unlock()
	for account, l := range s.shed.accounts {
		switch {
		case !all && !l.due():
		case l.events == 0:
			delete(s.shed.accounts, account)
		default:
			s.tellShed(account, l)
		}
	}
}

func (s *Sender) tellShed(account string, l *lost) {
	if n, oldest := l.tell(); n > 0 {
		s.log.Warn("webhook events dropped", zap.String("account", account),
			zap.String("why", dropOverflow), zap.Int("events", n), zap.Time("oldest", oldest))
	}
}
