package node

import (
	"context"
	"time"
)

// The pauses between attempts at something outside of this process.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// A backoff is the pause before the next attempt: it doubles with each one, from first to last.
type backoff struct {
	first, last time.Duration
	next        time.Duration // 0: first
}

// step returns the pause before the next attempt.
func (b *backoff) step() time.Duration {
	pause := max(b.next, b.first)
	b.next = min(2*pause, b.last)
	return pause
}

// reset makes the next pause the first again.
func (b *backoff) reset() { b.next = 0 }

// wait pauses, or returns the context's error if that ends before.
func wait(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}
