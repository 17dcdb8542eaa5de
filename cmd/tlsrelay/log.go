package main

import (
	"cmp"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tlsrelay/configs"
)

// newLogger makes the log of a configuration.
func newLogger(c configs.Log) (*zap.Logger, error) {
	level, err := zap.ParseAtomicLevel(cmp.Or(c.Level, "info"))
	if err != nil {
		return nil, err
	}
	zc := zap.NewProductionConfig()
	zc.Level, zc.Sampling, zc.DisableCaller = level, nil, true
	zc.EncoderConfig.TimeKey = "time"
	zc.EncoderConfig.EncodeTime = rfc3339Millis
	if c.Format == "console" {
		zc.Encoding = "console"
		zc.EncoderConfig.EncodeLevel = capitalLevel
	}
	return zc.Build()
}

func rfc3339Millis(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(t.UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}

func capitalLevel(l zapcore.Level, enc zapcore.PrimitiveArrayEncoder) {
	enc.AppendString(l.CapitalString())
}
