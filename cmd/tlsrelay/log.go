package main

import (
	"bytes"
	"cmp"
	"errors"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsrelay/configs"
	"tlsrelay/events"
)

// logLag is how long a line below a warning may take to be written. One
// write for each of them would be a third of all that the relay makes; a
// process that is killed takes so much of its log with it.
const logLag = 200 * time.Millisecond

// newLogger makes the log of a configuration. stop writes what is left of it;
// nothing may be logged afterwards.
func newLogger(c configs.Log, to zapcore.WriteSyncer) (log *zap.Logger, stop func() error, err error) {
	level, err := zapcore.ParseLevel(cmp.Or(c.Level, "info"))
	if err != nil {
		return nil, nil, err
	}
	ec := zap.NewProductionEncoderConfig()
	ec.TimeKey, ec.EncodeTime = "time", rfc3339Millis
	encoder := zapcore.NewJSONEncoder(ec)
	if c.Format == "console" {
		ec.EncodeLevel = capitalLevel
		encoder = zapcore.NewConsoleEncoder(ec)
	}
	out := &zapcore.BufferedWriteSyncer{WS: lossy{to}, FlushInterval: logLag}
	core := &promptCore{zapcore.NewCore(encoder, shown{out}, level)}
	return zap.New(core, zap.AddStacktrace(zap.ErrorLevel), zap.ErrorOutput(lossy{to})), out.Stop, nil
}

// lossy loses what cannot be written, a full disk or a broken pipe, and goes on
// with what can be later: a buffer remembers its first error for good. It syncs
// nothing, for pipes and terminals cannot, and files need not.
type lossy struct{ zapcore.WriteSyncer }

// Write implements io.Writer.
func (l lossy) Write(p []byte) (int, error) {
	_, _ = l.WriteSyncer.Write(p)
	return len(p), nil
}

// Sync implements zapcore.WriteSyncer.
func (lossy) Sync() error { return nil }

// shown takes the hidden characters out of lines on their way, whoever's words are
// in them: the encoders escape what JSON forbids, which is not all that a terminal
// obeys or hides. Line ends and tabs are the encoders' own here.
type shown struct{ zapcore.WriteSyncer }

// Write implements io.Writer.
func (s shown) Write(p []byte) (int, error) {
	for _, c := range p {
		if c < ' ' && c != '\n' && c != '\t' || c >= 0x7f {
			_, err := s.WriteSyncer.Write(bytes.Map(showable, p))
			return len(p), err
		}
	}
	return s.WriteSyncer.Write(p)
}

func showable(r rune) rune {
	if r == utf8.RuneError || r != '\n' && r != '\t' && events.Hidden(r) {
		return '?'
	}
	return r
}

// promptCore has warnings and worse written at once, and with them what was
// said before.
type promptCore struct{ zapcore.Core }

// With implements zapcore.Core.
func (c *promptCore) With(fields []zap.Field) zapcore.Core { return &promptCore{c.Core.With(fields)} }

// Check implements zapcore.Core.
func (c *promptCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *promptCore) Write(e zapcore.Entry, fields []zap.Field) error {
	err := c.Core.Write(e, fields)
	if e.Level >= zap.WarnLevel {
		err = errors.Join(err, c.Sync())
	}
	return err
}

// rfc3339Millis writes the time of a line. The layout with a fraction has no fast
// way through package time, and every message is two lines.
func rfc3339Millis(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	var room [len("2006-01-02T15:04:05.000Z")]byte
	b := t.UTC().AppendFormat(room[:0], time.RFC3339)
	ms := t.Nanosecond() / 1e6
	b = append(b[:len(b)-1], '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
	enc.AppendByteString(b)
}

func capitalLevel(l zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(l.CapitalString())
}
