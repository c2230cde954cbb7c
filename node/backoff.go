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

// repeatedEvery is how often an error that stays the same is logged: enough to be seen, and not what fills a disk.
const repeatedEvery = time.Minute

// repeats says which of many errors in a row are worth a line in the log. The zero value has seen none.
type repeats struct {
	text string
	at   time.Time // of the last line
}

// new reports whether err differs from the last one that was logged, or that one is a while ago.
func (r *repeats) new(err error) bool {
	if err.Error() == r.text && time.Since(r.at) < repeatedEvery {
		return false
	}
	r.text, r.at = err.Error(), time.Now()
	return true
}
