package node

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"margay/store"
)

// Times of the reports to the store. A report is due when something changed, at most every statusInterval, and again
// before the last one disappears. Enforcement never waits for a report.
const (
	statusInterval = 250 * time.Millisecond
	statusTimeout  = 5 * time.Second
	farewell       = 500 * time.Millisecond // bounds the last report, when the agent stops
)

// A reporter tells the store what this host enforces.
type reporter struct {
	store   store.Store
	log     *slog.Logger
	reports *prometheus.CounterVec
	// current returns what to report now.
	current func() store.NodeStatus
	kicked  chan struct{} // capacity 1
	timing  func() reporting
	started time.Time
	beaten  bool // the first heartbeat is stored
}

// A standing is the part of the status that the loop knows. Set and get may be called from several goroutines.
type standing struct {
	mu       sync.Mutex
	enforced store.Revision
	faults   []fault
	warnings []string
	ways     map[string][]string // to this host: interfaces and addresses
}

func (s *standing) setEnforced(r store.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enforced = r
}

func (s *standing) setFaults(faults []fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = faults
}

func (s *standing) setWarnings(warnings []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.warnings = warnings
}

// setInterfaces reports whether they are others than before: those of workloads, which come and go all the time, are none.
func (s *standing) setInterfaces(ways map[string][]string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	same := s.ways != nil && maps.EqualFunc(s.ways, ways, slices.Equal)
	s.ways = ways
	return !same
}

// interfaces returns what is not changed any more.
func (s *standing) interfaces() map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ways
}

func (s *standing) get() (store.Revision, []fault, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enforced, s.faults, s.warnings
}

// kick says that something changed. It never blocks.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run reports until the context ends, and once more then, so that nobody takes a stopped agent for a ready one.
func (r *reporter) run(ctx context.Context) {
	failing, beat := false, true
	for {
		var refresh <-chan time.Time // nil, for never: then only changes are reported
		if interval := r.timing().interval; interval > 0 {
			refresh = time.After(interval)
		}
		select {
		case <-ctx.Done():
			r.sayFarewell(ctx)
			return
		case <-r.kicked:
		case <-refresh:
			beat = true
		}
		beat = beat && refresh != nil
		err := r.report(ctx, beat)
		beat = beat && err != nil
		if err != nil && !failing && ctx.Err() == nil {
			r.log.Warn("status was not reported to the store, trying again", "error", err)
		}
		failing = err != nil
		pause := statusInterval
		if failing {
			pause = lastPause
			kick(r.kicked)
		}
		_ = wait(ctx, pause) // the end of the context is seen above
	}
}

// report reports once, with a heartbeat if one is due.
func (r *reporter) report(ctx context.Context, beat bool) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	status := r.current()
	if beat {
		status.Heartbeat = &store.Heartbeat{Time: status.Time, UptimeSeconds: time.Since(r.started).Seconds(), First: !r.beaten}
	}
	err := r.store.ReportStatus(ctx, status)
	r.beaten = r.beaten || beat && err == nil
	result := "ok"
	if err != nil {
		result = "error"
	}
	r.reports.WithLabelValues(result).Inc()
	return err
}

func (r *reporter) sayFarewell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	last := r.current()
	last.Ready, last.Detail = false, "the agent was stopped; its rules stay in force"
	if err := r.store.ReportStatus(ctx, last); err != nil {
		r.log.Debug("the stop was not reported to the store", "error", err)
	}
}
