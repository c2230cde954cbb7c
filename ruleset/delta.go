package ruleset

import "maps"

// A Delta turns one Program into the next. A nil map entry removes the object; a nil Settings keeps the settings.
//
// Invariants: applying a Delta leaves no endpoint or workload with a policy that the Program does not hold and no rule with a set
// that it does not hold; a set changes in place only by Add and Remove.
type Delta struct {
	Settings  *Settings
	Endpoints map[EndpointID]*Endpoint
	Workloads map[EndpointID]*Workload
	Policies  map[PolicyID]*Policy
	Profiles  map[string]*Profile
	Sets      map[SetID]*SetDelta
}

// A SetDelta changes one set. A nil *SetDelta in a Delta removes the set.
type SetDelta struct {
	// New is the whole set when it did not exist before; Add and Remove are empty then.
	New    *Set
	Add    []Member
	Remove []Member
}

// Empty reports whether applying d changes nothing.
func (d *Delta) Empty() bool {
	return d.Settings == nil && len(d.Endpoints) == 0 && len(d.Workloads) == 0 && len(d.Policies) == 0 && len(d.Profiles) == 0 && len(d.Sets) == 0
}

// Apply changes p as d says. New sets are taken over, not copied: p owns them afterwards.
func (p *Program) Apply(d *Delta) {
	if d.Settings != nil {
		p.Settings = *d.Settings
	}
	merge(p.Endpoints, d.Endpoints)
	merge(p.Workloads, d.Workloads)
	merge(p.Policies, d.Policies)
	merge(p.Profiles, d.Profiles)
	for id, change := range d.Sets {
		p.applySet(id, change)
	}
}

// Clone returns a copy that later Deltas to p do not change. What is never changed in place is shared.
func (p *Program) Clone() *Program {
	c := &Program{
		Settings: p.Settings, Endpoints: maps.Clone(p.Endpoints), Workloads: maps.Clone(p.Workloads),
		Policies: maps.Clone(p.Policies), Profiles: maps.Clone(p.Profiles), Sets: make(map[SetID]*Set, len(p.Sets)),
	}
	for id, set := range p.Sets {
		c.Sets[id] = set.Clone()
	}
	return c
}

func (p *Program) applySet(id SetID, change *SetDelta) {
	if change == nil {
		delete(p.Sets, id)
		return
	}
	if change.New != nil {
		p.Sets[id] = change.New
		return
	}
	set := p.Sets[id]
	for _, m := range change.Remove {
		set.Remove(m)
	}
	for _, m := range change.Add {
		set.Add(m)
	}
}

func merge[K comparable, V any](into map[K]*V, from map[K]*V) {
	for k, v := range from {
		if v == nil {
			delete(into, k)
		} else {
			into[k] = v
		}
	}
}
