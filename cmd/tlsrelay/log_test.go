package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsrelay/configs"
)

// Lines are written within the lag, a warning at once and with all before it.
func TestLogLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log, stop, err := newLogger(configs.Log{}, zapcore.AddSync(&out))
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
