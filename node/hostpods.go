package node

import (
	"context"
	"errors"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// How often the store is asked for pods on this host's own network, and asked again when it does not answer. They matter to
// warnings only.
const (
	hostPodsInterval = time.Minute
	hostPodsRetry    = 10 * time.Second
)

// followHostPods tells the loop which pods are on this host's own network, until the context ends.
func (a *agent) followHostPods(ctx context.Context, s store.HostPods, into chan<- []v3.HostPod) {
	failing := false
	for {
		attempt, cancel := context.WithTimeout(ctx, storeTimeout)
		pods, err := s.HostPods(attempt, a.host)
		cancel()
		switch {
		case err == nil:
			select {
			case into <- pods:
			case <-ctx.Done():
				return
			}
		case errors.Is(err, store.ErrNotSupported):
			return // there are no pods where this store gets its objects from
		case !failing && ctx.Err() == nil:
			a.log.Warn("pods on this host's network are not known, so labels of theirs that count for nothing are not warned of", "error", err)
		}
		failing = err != nil
		pause := hostPodsInterval
		if failing {
			pause = hostPodsRetry
		}
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// setHostPods tells calc about pods that are not as they were.
func (l *loop) setHostPods(pods []v3.HostPod) {
	l.calc.SetHostPods(pods)
	l.summariseSoon()
}
