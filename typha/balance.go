package typha

import (
	"context"
	"math/rand/v2"
	"time"
)

// connectionLimit returns how many clients an instance keeps: its share of the nodes with 20 % to spare, as if
// one instance were missing, so that the loss of one does not make the others drop what they took over; within the two
// limits. A lone instance keeps up to the upper one. Nothing is known (0) of nodes or instances: the same.
func connectionLimit(nodes, instances, lower, upper int) int {
	if instances <= 1 || nodes <= 0 {
		return upper
	}
	return min(max(1+nodes*120/(instances-1)/100, lower), upper)
}

// watchInstances keeps the limit up to date until the context ends.
func (s *Server) watchInstances(ctx context.Context) {
	if s.cfg.Instances == nil {
		return
	}
	n, failing := 0, false
	for {
		now, err := s.cfg.Instances(ctx)
		switch {
		case err == nil:
			n = now
		case !failing && ctx.Err() == nil:
			s.log.Warn("the number of typhas is not known, the last one counts", "error", err, "last", n)
		}
		failing = err != nil
		limit := connectionLimit(s.cache.nodeCount(), n, s.cfg.LowerLimit, s.cfg.UpperLimit)
		s.mu.Lock()
		changed := limit != s.limit
		s.limit = limit
		s.mu.Unlock()
		if changed {
			s.log.Info("limit of clients", "limit", limit, "instances", n)
		}
		if pause(ctx, s.cfg.PollInterval) != nil {
			return
		}
	}
}

// rebalance drops clients above the limit one by one until the context ends. They go to another instance by chance.
func (s *Server) rebalance(ctx context.Context) {
	for pause(ctx, jitter(s.cfg.DropInterval)) == nil {
		if peers, limit := s.count(); peers > limit && s.dropOne(errRebalancing) {
			s.metrics.dropped.Inc()
		}
	}
}

// drain lets all clients go, evenly, so that the other instances do not get them all at once. It returns when they are
// gone or the time is over.
func (s *Server) drain() {
	peers, _ := s.count()
	if peers == 0 {
		return
	}
	interval := min(s.cfg.DrainTimeout*95/100/time.Duration(peers), s.cfg.DrainInterval)
	s.log.Info("stopping: clients are sent to other instances", "clients", peers, "interval", interval)
	deadline := time.Now().Add(s.cfg.DrainTimeout)
	for peers > 0 && time.Now().Before(deadline) {
		s.dropOne(errStopping)
		time.Sleep(jitter(interval))
		peers, _ = s.count()
	}
}

// jitter returns d, give or take 5 %.
func jitter(d time.Duration) time.Duration { return d*95/100 + rand.N(d/10+1) }

// pause waits, or returns the context's error if that ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
