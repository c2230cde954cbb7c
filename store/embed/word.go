package embed

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"go.uber.org/zap/zapcore"
)

// A lastWord is what etcd says when it gives up: then it would end the process, or panic in a goroutine of its own, where
// nobody can recover it.
type lastWord struct {
	said chan struct{} // closed when there is one
	once sync.Once
	err  error // valid once said is closed
}

func newLastWord() *lastWord { return &lastWord{said: make(chan struct{})} }

// OnWrite implements zapcore.CheckWriteHook. It does not return: whoever gives up must not go on, and keeps its locks, so that
// nobody takes for written what is not.
func (w *lastWord) OnWrite(e *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(e.Message)
	for _, field := range fields {
		if cause, ok := field.Interface.(error); ok && field.Type == zapcore.ErrorType {
			err = fmt.Errorf("%s: %w", e.Message, cause)
		}
	}
	w.once.Do(func() {
		w.err = err
		close(w.said)
	})
	select {}
}

// get returns what was said, nil while nothing is.
func (w *lastWord) get() error {
	select {
	case <-w.said:
		return w.err
	default:
		return nil
	}
}

// full reports whether an error says that there is no space on the disk.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// gaveUp says what to do when etcd stopped while it ran.
func gaveUp(dir string, cause error) error {
	if full(cause) {
		return fmt.Errorf("the disk of %s is full: %w (free some space and start it again: what it acknowledged is kept)", dir, cause)
	}
	return fmt.Errorf("etcd gave up on %s: %w (start it again; if that fails, restore the directory from a backup)", dir, cause)
}
