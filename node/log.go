package node

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// A countingHandler counts the lines that could not be written.
type countingHandler struct {
	slog.Handler
	failed prometheus.Counter // nil: not counted
}

// Handle implements slog.Handler.
func (h *countingHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if err != nil && h.failed != nil {
		h.failed.Inc()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h *countingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &countingHandler{h.Handler.WithAttrs(attrs), h.failed}
}

// WithGroup implements slog.Handler.
func (h *countingHandler) WithGroup(name string) slog.Handler {
	return &countingHandler{h.Handler.WithGroup(name), h.failed}
}
