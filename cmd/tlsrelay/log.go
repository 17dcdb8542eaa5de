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

// logLag is how long a line below a warning may wait to be written. A write for each line
// would be a third of all writes of the relay. A process that is killed loses so much of
// its log.
const logLag = 200 * time.Millisecond

// newLogger makes the log. stop writes the lines that wait; nothing may be logged after it.
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

// lossy hides errors of writing (a full disk, a broken pipe), because a buffer that sees
// one never writes again. It syncs nothing: pipes and terminals cannot, and files need
// not.
type lossy struct{ zapcore.WriteSyncer }

// Write implements io.Writer.
func (l lossy) Write(p []byte) (int, error) {
	_, _ = l.WriteSyncer.Write(p)
	return len(p), nil
}

// Sync implements zapcore.WriteSyncer.
func (lossy) Sync() error { return nil }

// shown replaces the hidden characters of all lines, whoever's text is in them. The
// encoders escape what JSON forbids, but a terminal obeys or hides more than that. Line
// ends and tabs are the encoders' own.
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

// promptCore writes warnings and errors at once, with the lines that wait before them.
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

// rfc3339Millis writes the time of a line. It adds the fraction itself, because package
// time formats only the layout without one fast, and each message has two lines.
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
