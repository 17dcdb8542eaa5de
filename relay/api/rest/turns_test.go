package rest

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"tlsrelay/policy/account"
)

// Calls on lists take turns: those of one account among themselves, and then all.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTurns(2, 3, 10*time.Second, "x")
		take := func(who account.ID, after time.Duration, want error) (leave func()) {
			t.Helper()
			begun := time.Now()
			leave, err := s.take(t.Context(), who)
			if !errors.Is(err, want) || time.Since(begun) != after {
				t.Errorf("%s: %v after %v, want %v after %v", who, err, time.Since(begun), want, after)
			}
			return leave
		}
		one, two := take("a", 0, nil), take("a", 0, nil)
		take("a", 10*time.Second, errNoTurn)
		three := take("b", 0, nil)
		take("c", 10*time.Second, errNoTurn)
		time.AfterFunc(time.Second, one)
		four := take("c", time.Second, nil)
		cancelled, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := s.take(cancelled, "a"); !errors.Is(err, errNoTurn) {
			t.Errorf("whoever has gone: %v", err)
		}
		for _, leave := range []func(){two, three, four} {
			leave()
		}
		if len(s.of) != 0 || len(s.all) != 0 {
			t.Errorf("%d accounts are remembered, and %d calls", len(s.of), len(s.all))
		}
	})
}
