package node

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/store"
)

// endpointStates know in which state every endpoint of this host is. Methods may be called from several goroutines.
type endpointStates struct {
	kicked  chan struct{} // capacity 1: something changed
	changed func()        // called after a change, without the lock

	mu      sync.Mutex
	found   map[v3.Key][]string // interfaces of each endpoint that is enforced or should be; nil: nothing is enforced yet
	exist   map[string]bool
	running map[string]bool // nil: not known, all that exist count
}

func newEndpointStates(changed func()) *endpointStates {
	return &endpointStates{kicked: make(chan struct{}, 1), changed: changed}
}

// update changes something and tells if a state is another one now.
func (s *endpointStates) update(change func()) {
	s.mu.Lock()
	before := s.states()
	change()
	same := maps.Equal(before, s.states())
	s.mu.Unlock()
	if !same {
		kick(s.kicked)
		s.changed()
	}
}

// setProgram takes note of what is enforced.
func (s *endpointStates) setProgram(p *ruleset.Program) {
	found := map[v3.Key][]string{}
	for id, ep := range p.Endpoints {
		found[keyOf(id)] = ep.Interfaces
	}
	for id, w := range p.Workloads {
		found[keyOf(id)] = []string{w.Interface}
	}
	s.update(func() { s.found = found })
}

func keyOf(id ruleset.EndpointID) v3.Key {
	return v3.Key{Kind: v3.Kind(id.Kind), Namespace: id.Namespace, Name: id.Name}
}

// setInterfaces takes note of the interfaces that exist, setRunning of those that are up and can send.
func (s *endpointStates) setInterfaces(list map[string][]netip.Addr) {
	exist := make(map[string]bool, len(list))
	for name := range list {
		exist[name] = true
	}
	s.update(func() { s.exist = exist })
}

func (s *endpointStates) setRunning(running map[string]bool) {
	s.update(func() { s.running = running })
}

// get returns the states; ok is false before anything is enforced.
func (s *endpointStates) get() (states map[v3.Key]store.EndpointState, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states(), s.found != nil
}

// texts returns the states by what endpoints are called.
func (s *endpointStates) texts() map[string]store.EndpointState {
	states, _ := s.get()
	out := make(map[string]store.EndpointState, len(states))
	for key, state := range states {
		out[key.String()] = state
	}
	return out
}

func (s *endpointStates) states() map[v3.Key]store.EndpointState {
	out := make(map[v3.Key]store.EndpointState, len(s.found))
	for key, names := range s.found {
		out[key] = s.state(key.Kind, names)
	}
	return out
}

// state is up when all interfaces are, as the incumbent has it: a host endpoint without one, or whose interface is not
// there, is in error; a workload is down then. An endpoint for all interfaces is up whatever they are.
func (s *endpointStates) state(kind v3.Kind, names []string) store.EndpointState {
	missing := store.EndpointError
	if kind == v3.KindWorkloadEndpoint {
		missing = store.EndpointDown
	}
	if len(names) == 0 {
		return missing
	}
	state := store.EndpointUp
	for _, name := range names {
		switch {
		case name == ruleset.AllInterfaces:
		case !s.exist[name]:
			return missing
		case s.running != nil && !s.running[name]:
			state = store.EndpointDown
		}
	}
	return state
}

// An endpointReporter writes the states where the incumbent's clients look for them, if EndpointReportingEnabled asks for it.
type endpointReporter struct {
	store  store.EndpointReporter
	node   string
	log    *slog.Logger
	states *endpointStates
	timing func() reporting

	failing bool
	written bool                           // by this run
	last    map[v3.Key]store.EndpointState // what is stored
}

// endpointRefresh is after how many delays the states are written again, in case somebody else changed them (Felix's).
const endpointRefresh = 180

// run writes until the context ends. What it wrote stays, as the rules do.
func (r *endpointReporter) run(ctx context.Context) {
	for {
		t := r.timing()
		select {
		case <-ctx.Done():
			return
		case <-r.states.kicked:
		case <-time.After(max(t.endpointDelay, statusInterval) * endpointRefresh):
			r.last = nil
		}
		t = r.timing()
		pause := max(t.endpointDelay, statusInterval)
		if !r.write(ctx, t) {
			pause = lastPause
			kick(r.states.kicked)
		}
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// write brings the store in line and reports whether it is. When reporting is switched off, what was written is removed.
func (r *endpointReporter) write(ctx context.Context, t reporting) bool {
	states, ok := r.states.get()
	switch {
	case !t.endpoints && !r.written, t.endpoints && !ok:
		return true
	case !t.endpoints:
		states = nil
	case r.last != nil && maps.Equal(states, r.last):
		return true
	}
	attempt, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	if err := r.store.ReportEndpoints(attempt, r.node, states); err != nil {
		if !r.failing && ctx.Err() == nil {
			r.log.Warn("states of endpoints were not written to the store, trying again", "error", err)
		}
		r.failing = true
		return false
	}
	r.failing, r.written, r.last = false, t.endpoints, states
	return true
}
