package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/store"
)

func TestEndpointStates(t *testing.T) {
	hep := v3.Key{Kind: v3.KindHostEndpoint, Name: "h"}
	wep := v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "ns", Name: "w"}
	changes := 0
	s := newEndpointStates(func() { changes++ })
	if states, ok := s.get(); ok || len(states) != 0 {
		t.Errorf("before anything is enforced: %v %v", states, ok)
	}
	program := func(interfaces ...string) func() {
		p := ruleset.NewProgram()
		p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "h"}] = &ruleset.Endpoint{Interfaces: interfaces}
		p.Workloads[ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w"}] = &ruleset.Workload{Interface: "cali1"}
		return func() { s.setProgram(p) }
	}
	exist := func(names ...string) func() {
		list := map[string][]netip.Addr{}
		for _, name := range names {
			list[name] = nil
		}
		return func() { s.setInterfaces(list) }
	}
	running := func(names ...string) func() {
		list := map[string]bool{}
		for _, name := range names {
			list[name] = true
		}
		return func() { s.setRunning(list) }
	}
	const up, down, bad = store.EndpointUp, store.EndpointDown, store.EndpointError
	for _, step := range []struct {
		name     string
		do       func()
		hep, wep store.EndpointState
		told     int // changes so far
	}{
		{"no interface exists", program("eth0"), bad, down, 1},
		{"one appears, of which nothing more is known", exist("eth0", "eth1"), up, down, 2},
		{"it does not run", running("eth1"), down, down, 3},
		{"it runs", running("eth0", "eth1"), up, down, 4},
		{"nothing new", running("eth0", "eth1"), up, down, 4},
		{"two interfaces", program("eth0", "eth1"), up, down, 4},
		{"one of them down", running("eth0"), down, down, 5},
		{"one of them gone", exist("eth0", "cali1"), bad, down, 6},
		{"workload runs", running("eth0", "cali1"), bad, up, 7},
		{"all interfaces", program("*"), up, up, 8},
		{"no interface found", program(), bad, up, 9},
	} {
		step.do()
		states, ok := s.get()
		if want := map[v3.Key]store.EndpointState{hep: step.hep, wep: step.wep}; !ok || !maps.Equal(states, want) || changes != step.told {
			t.Errorf("%s: %v, told %d times; want %v, %d", step.name, states, changes, want, step.told)
		}
	}
	if texts := s.texts(); texts["HostEndpoint(h)"] != bad || texts["WorkloadEndpoint(ns/w)"] != up {
		t.Errorf("%v", texts)
	}
}

// A statesStore takes what is reported.
type statesStore struct {
	store.EndpointReporter
	mu      sync.Mutex
	down    bool
	reports chan map[v3.Key]store.EndpointState
}

func (s *statesStore) ReportEndpoints(_ context.Context, _ string, states map[v3.Key]store.EndpointState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.New("down")
	}
	s.reports <- states
	return nil
}

func (s *statesStore) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// States are written while that is asked for, once each, again after an error, and removed when it is not asked for any more.
func TestEndpointReporter(t *testing.T) {
	ctx := t.Context()
	s := &statesStore{reports: make(chan map[v3.Key]store.EndpointState, 10)}
	states := newEndpointStates(func() {})
	r := &endpointReporter{store: s, node: "n", log: slog.New(slog.DiscardHandler), states: states}
	on, off := reporting{endpoints: true}, reporting{}
	write := func(t_ reporting, wantOK bool, want ...map[v3.Key]store.EndpointState) {
		t.Helper()
		if ok := r.write(ctx, t_); ok != wantOK {
			t.Errorf("written %v, want %v", ok, wantOK)
		}
		for _, w := range want {
			if got := <-s.reports; !maps.Equal(got, w) {
				t.Errorf("reported %v, want %v", got, w)
			}
		}
		if len(s.reports) > 0 {
			t.Errorf("reported as well: %v", <-s.reports)
		}
	}
	hep := v3.Key{Kind: v3.KindHostEndpoint, Name: "h"}
	at := func(state store.EndpointState) map[v3.Key]store.EndpointState {
		return map[v3.Key]store.EndpointState{hep: state}
	}
	write(on, true) // nothing is enforced yet: what an earlier run wrote stays
	p := ruleset.NewProgram()
	p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "h"}] = &ruleset.Endpoint{Interfaces: []string{"eth0"}}
	states.setProgram(p)
	write(off, true)
	write(on, true, at(store.EndpointError))
	write(on, true)
	states.setInterfaces(map[string][]netip.Addr{"eth0": nil})
	s.setDown(true)
	write(on, false)
	s.setDown(false)
	write(on, true, at(store.EndpointUp))
	write(off, true, nil)
	write(off, true)
	write(on, true, at(store.EndpointUp))
}

// The loop of the reporter writes when it is kicked.
func TestEndpointReporterRuns(t *testing.T) {
	s := &statesStore{reports: make(chan map[v3.Key]store.EndpointState, 10)}
	states := newEndpointStates(func() {})
	r := &endpointReporter{store: s, node: "n", log: slog.New(slog.DiscardHandler), states: states,
		timing: func() reporting { return reporting{endpoints: true, endpointDelay: time.Hour} }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	p := ruleset.NewProgram()
	p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "h"}] = &ruleset.Endpoint{}
	states.setProgram(p)
	if got := <-s.reports; len(got) != 1 {
		t.Errorf("reported %v", got)
	}
	cancel()
	<-done
}

// The status holds the states of endpoints and what calc warns of, and is a heartbeat now and then.
func TestStatusHasEndpointsAndWarnings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.put(v3.KindHostEndpoint, `{"metadata": {"name": "lost"}, "spec": {"node": "h", "interfaceName": "eth7", "profiles": ["gone"]}}`)
	warned := func(s store.NodeStatus) bool {
		return slices.ContainsFunc(s.Warnings, func(w string) bool {
			return strings.HasPrefix(w, "HostEndpoint(lost): profile gone does not exist")
		})
	}
	r.untilStatus("endpoint and warning are there", func(s store.NodeStatus) bool {
		return s.Endpoints["HostEndpoint(lost)"] == store.EndpointError && warned(s)
	})
	all, err := r.store.Statuses(t.Context())
	check(t, err)
	if first := all[0].Heartbeat; first == nil || !first.First || first.Time == "" {
		t.Errorf("first report %+v", all[0])
	}
	for _, later := range all[1:] {
		if later.Heartbeat != nil {
			t.Errorf("a heartbeat before it is due: %+v", later)
		}
	}
	r.store.remove(v3.Key{Kind: v3.KindHostEndpoint, Name: "lost"})
	r.untilStatus("both are gone", func(s store.NodeStatus) bool { return !warned(s) && len(s.Endpoints) == 1 })
}
