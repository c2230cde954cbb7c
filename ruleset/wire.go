package ruleset

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"maps"
	"slices"
)

// A Program is written as JSON for people and for margay explain --live. The form is no interface: only the release that
// wrote it reads it. What is nil stays nil and what is empty stays empty, for in a rule they are not the same.
type programJSON struct {
	Settings  Settings
	Endpoints []*Endpoint
	Workloads []*Workload
	Policies  []*Policy
	Profiles  []*Profile
	Sets      []setJSON
}

type setJSON struct {
	ID      SetID
	Kind    SetKind
	Comment string
	Members []Member
}

// MarshalJSON implements json.Marshaler. The order depends on the content only.
func (p *Program) MarshalJSON() ([]byte, error) {
	out := programJSON{
		Settings:  p.Settings,
		Endpoints: sortedValues(p.Endpoints, func(a, b EndpointID) int { return PolicyID(a).Compare(PolicyID(b)) }),
		Workloads: sortedValues(p.Workloads, func(a, b EndpointID) int { return PolicyID(a).Compare(PolicyID(b)) }),
		Policies:  sortedValues(p.Policies, PolicyID.Compare),
		Profiles:  sortedValues(p.Profiles, cmp.Compare[string]),
	}
	for _, id := range slices.Sorted(maps.Keys(p.Sets)) {
		set := p.Sets[id]
		out.Sets = append(out.Sets, setJSON{id, set.Kind, set.Comment, set.Members()})
	}
	return json.Marshal(out)
}

func sortedValues[K comparable, V any](m map[K]*V, compare func(a, b K) int) []*V {
	var out []*V
	for _, k := range slices.SortedFunc(maps.Keys(m), compare) {
		out = append(out, m[k])
	}
	return out
}

// UnmarshalJSON implements json.Unmarshaler. A field that it does not know is an error: it might narrow a rule.
func (p *Program) UnmarshalJSON(data []byte) error {
	var in programJSON
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	*p = *NewProgram()
	p.Settings = in.Settings
	whole := true
	for _, ep := range in.Endpoints {
		if whole = whole && ep != nil; whole {
			p.Endpoints[ep.ID] = ep
		}
	}
	for _, w := range in.Workloads {
		if whole = whole && w != nil; whole {
			p.Workloads[w.ID] = w
		}
	}
	for _, policy := range in.Policies {
		if whole = whole && policy != nil; whole {
			p.Policies[policy.ID] = policy
		}
	}
	for _, profile := range in.Profiles {
		if whole = whole && profile != nil; whole {
			p.Profiles[profile.Name] = profile
		}
	}
	for _, set := range in.Sets {
		for _, m := range set.Members {
			whole = whole && m.Prefix.IsValid()
		}
		if whole {
			p.Sets[set.ID] = NewSet(set.Kind, set.Comment, set.Members...)
		}
	}
	if !whole {
		return errors.New("read program: an entry is null or an address is missing")
	}
	return nil
}
