package main

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tlsrelay/configs"
)

// Lines are written within the lag, a warning at once and with all before it.
func TestLogLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out unwritable
		log, stop, err := newLogger(configs.Log{}, &out)
		if err != nil {
			t.Fatal(err)
		}
		lines := func() string {
			synctest.Wait()
			var words []string
			for line := range strings.Lines(out.String()) {
				_, rest, _ := strings.Cut(line, `"msg":"`)
				word, _, _ := strings.Cut(rest, `"`)
				words = append(words, word)
			}
			return strings.Join(words, " ")
		}
		log.Info("one")
		if got := lines(); got != "" {
			t.Errorf("at once: %q", got)
		}
		time.Sleep(logLag)
		if got := lines(); got != "one" {
			t.Errorf("after the lag: %q", got)
		}
		log.With(zap.Int("n", 2)).Info("two")
		log.Warn("three")
		if got := lines(); got != "one two three" {
			t.Errorf("after a warning: %q", got)
		}
		log.Info("four")
		if err := stop(); err != nil {
			t.Error(err)
		}
		if got := lines(); got != "one two three four" {
			t.Errorf("at the end: %q", got)
		}
	})
}

func TestTimeOfALine(t *testing.T) {
	for _, at := range []time.Time{
		time.Unix(0, 0), time.Unix(1795650000, 7_000_000), time.Unix(1795650000, 89_999_999),
		time.Date(2026, 1, 2, 3, 4, 5, 999_999_999, time.FixedZone("", -7*60*60)),
	} {
		var out unwritable
		log, stop, err := newLogger(configs.Log{}, &out)
		if err != nil {
			t.Fatal(err)
		}
		log.WithOptions(zap.WithClock(clock(at))).Info("x")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if want := `"time":"` + at.UTC().Format("2006-01-02T15:04:05.000Z") + `"`; !strings.Contains(out.String(), want) {
			t.Errorf("%s, want %s", out.String(), want)
		}
	}
}

// clock has stopped.
type clock time.Time

func (c clock) Now() time.Time                       { return time.Time(c) }
func (clock) NewTicker(d time.Duration) *time.Ticker { return time.NewTicker(d) }

// unwritable is an output that can fail for a while.
type unwritable struct {
	mu      sync.Mutex
	text    strings.Builder
	failing bool
}

func (u *unwritable) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.failing {
		return 0, syscall.ENOSPC
	}
	return u.text.Write(p)
}

func (u *unwritable) Sync() error { return syscall.EINVAL } // as pipes and terminals do

func (u *unwritable) String() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.text.String()
}

func (u *unwritable) fail(failing bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.failing = failing
}

// What cannot be written is lost, and nothing else: neither later lines nor
// the form of the others.
func TestLogGoesOn(t *testing.T) {
	var out unwritable
	log, stop, err := newLogger(configs.Log{}, &out)
	if err != nil {
		t.Fatal(err)
	}
	out.fail(true)
	log.Warn("lost")
	out.fail(false)
	log.Warn("kept")
	if err := stop(); err != nil {
		t.Error(err)
	}
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `"msg":"kept"`) {
		t.Errorf("the log is %q", got)
	}
}
