package node

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestRepeats: an error is a line when it is new, when it is another than the last, and again after a minute.
func TestRepeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r repeats
		full, away := errors.New("full"), errors.New("away")
		for i, c := range []struct {
			after time.Duration
			err   error
			want  bool
		}{
			{0, full, true}, {5 * time.Second, full, false}, {5 * time.Second, away, true}, {5 * time.Second, full, true},
			{59 * time.Second, full, false}, {time.Second, full, true}, {time.Second, full, false},
		} {
			time.Sleep(c.after)
			if got := r.new(c.err); got != c.want {
				t.Errorf("%d: %t, want %t", i, got, c.want)
			}
		}
	})
}
