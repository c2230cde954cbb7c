package ruleset

import (
	"reflect"
	"testing"
)

func TestDeltaApply(t *testing.T) {
	a, b := members("10.0.0.1/32")[0], members("10.0.0.2/32")[0]
	before := func() *Program {
		p := host(nil, map[string][]Rule{"allow": {allow}})
		p.Sets["set"] = NewSet(Addrs, "c", a)
		return p
	}
	tests := []struct {
		name   string
		delta  Delta
		change func(p *Program) // what the delta must do
	}{
		{"nothing", Delta{}, func(*Program) {}},
		{"settings", Delta{Settings: &Settings{Reject: true}}, func(p *Program) { p.Settings.Reject = true }},
		{"remove endpoint", Delta{Endpoints: map[EndpointID]*Endpoint{eth0: nil}}, func(p *Program) { delete(p.Endpoints, eth0) }},
		{"replace endpoint", Delta{Endpoints: map[EndpointID]*Endpoint{eth0: {ID: eth0}}}, func(p *Program) { p.Endpoints[eth0] = &Endpoint{ID: eth0} }},
		{"add endpoint", Delta{Endpoints: map[EndpointID]*Endpoint{anyway: {ID: anyway}}}, func(p *Program) { p.Endpoints[anyway] = &Endpoint{ID: anyway} }},
		{"remove policy", Delta{Policies: map[PolicyID]*Policy{policyID("allow"): nil}}, func(p *Program) { delete(p.Policies, policyID("allow")) }},
		{"add policy", Delta{Policies: map[PolicyID]*Policy{policyID("new"): {}}}, func(p *Program) { p.Policies[policyID("new")] = &Policy{} }},
		{"remove profile", Delta{Profiles: map[string]*Profile{"open": nil}}, func(p *Program) { delete(p.Profiles, "open") }},
		{"replace profile", Delta{Profiles: map[string]*Profile{"open": {}}}, func(p *Program) { p.Profiles["open"] = &Profile{} }},
		{"remove set", Delta{Sets: map[SetID]*SetDelta{"set": nil}}, func(p *Program) { delete(p.Sets, "set") }},
		{"add set", Delta{Sets: map[SetID]*SetDelta{"new": {New: NewSet(AddrPorts, "n", b)}}}, func(p *Program) { p.Sets["new"] = NewSet(AddrPorts, "n", b) }},
		{"change set", Delta{Sets: map[SetID]*SetDelta{"set": {Add: []Member{b}, Remove: []Member{a}}}}, func(p *Program) { p.Sets["set"] = NewSet(Addrs, "c", b) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, want := before(), before()
			test.change(want)
			got.Apply(&test.delta)
			if !reflect.DeepEqual(got, want) {
				t.Errorf("Apply gives %+v, want %+v", got, want)
			}
			if empty := test.name == "nothing"; test.delta.Empty() != empty {
				t.Errorf("Empty = %v", !empty)
			}
		})
	}
}

func TestDeltaApplyChangesSetInPlace(t *testing.T) {
	p := NewProgram()
	set := NewSet(Addrs, "")
	p.Apply(&Delta{Sets: map[SetID]*SetDelta{"s": {New: set}}})
	if p.Sets["s"] != set {
		t.Error("a new set is copied")
	}
	p.Apply(&Delta{Sets: map[SetID]*SetDelta{"s": {Add: members("10.0.0.1/32")}}})
	if p.Sets["s"] != set || set.Len() != 1 {
		t.Error("a change replaces the set")
	}
}

func TestClone(t *testing.T) {
	a, b := members("10.0.0.1/32")[0], members("10.0.0.2/32")[0]
	p := host(nil, map[string][]Rule{"allow": {allow}})
	p.Sets["set"] = NewSet(Addrs, "c", a)
	want := p.Clone()
	c := p.Clone()
	if !reflect.DeepEqual(p, c) {
		t.Errorf("%+v, want %+v", c, p)
	}
	p.Apply(&Delta{
		Settings: &Settings{Reject: true}, Endpoints: map[EndpointID]*Endpoint{eth0: nil}, Policies: map[PolicyID]*Policy{policyID("allow"): nil},
		Profiles: map[string]*Profile{"new": {}}, Workloads: map[EndpointID]*Workload{eth0: {}},
		Sets: map[SetID]*SetDelta{"set": {Add: []Member{b}, Remove: []Member{a}}},
	})
	if !reflect.DeepEqual(c, want) {
		t.Errorf("a change of the original changes the copy: %+v", c)
	}
}
