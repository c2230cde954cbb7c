package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// ZapLogger returns a logger for etcd's libraries that writes to log: what etcd calls an error at the given level,
// everything else for debugging. log nil drops everything. Instead of ending the process, a fatal message panics.
func ZapLogger(log *slog.Logger, level slog.Level) *zap.Logger {
	var core zapcore.Core = zapcore.NewNopCore()
	if log != nil {
		core = &slogCore{log: log, level: level}
	}
	return zap.New(core, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// slogCore hands zap's entries to slog.
type slogCore struct {
	log   *slog.Logger
	level slog.Level // of errors
	with  []zapcore.Field
}

// Enabled implements zapcore.LevelEnabler.
func (c *slogCore) Enabled(level zapcore.Level) bool {
	return c.log.Enabled(context.Background(), c.levelOf(level))
}

// levelOf returns slog's level for zap's.
func (c *slogCore) levelOf(level zapcore.Level) slog.Level {
	if level >= zapcore.ErrorLevel {
		return c.level
	}
	return slog.LevelDebug
}

// With implements zapcore.Core.
func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	with := append(append([]zapcore.Field(nil), c.with...), fields...)
	return &slogCore{log: c.log, level: c.level, with: with}
}

// Check implements zapcore.Core.
func (c *slogCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return checked.AddCore(e, c)
	}
	return checked
}

// Write implements zapcore.Core.
func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range c.with {
		field.AddTo(encoder)
	}
	for _, field := range fields {
		field.AddTo(encoder)
	}
	attrs := make([]slog.Attr, 0, len(encoder.Fields))
	for name, value := range encoder.Fields {
		attrs = append(attrs, slog.Any(name, value))
	}
	c.log.LogAttrs(context.Background(), c.levelOf(e.Level), "etcd: "+e.Message, attrs...)
	return nil
}

// Sync implements zapcore.Core.
func (c *slogCore) Sync() error { return nil }
