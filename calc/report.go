package calc

import (
	v3 "margay/api/v3"
)

// Counts are the sizes of what is known and in use, as of the last Flush.
type Counts struct {
	LocalHostEndpoints, LocalWorkloadEndpoints int
	// ActivePolicies apply to a local endpoint; ActiveSelectors are sets in use, those of named ports included.
	ActivePolicies, ActiveSelectors int
	// Totals of the cluster.
	Hosts, HostEndpoints, WorkloadEndpoints, Policies, Profiles, Tiers int
	// The set index: labelled objects, and selectors by whether labels lead to them or every object asks them.
	LabelledObjects, OptimizedSelectors, UnoptimizedSelectors int
}

// Counts returns the counts. It goes through everything: call it when somebody asks.
func (c *Calc) Counts() Counts {
	n := Counts{
		ActiveSelectors: len(c.sets), Hosts: len(c.hosts), Policies: len(c.policies),
		Tiers: len(c.tiers), LabelledObjects: len(c.items), UnoptimizedSelectors: len(c.setIndex.rest),
		OptimizedSelectors: c.setIndex.size - len(c.setIndex.rest),
	}
	for key, it := range c.items {
		switch key.Kind {
		case v3.KindHostEndpoint:
			n.HostEndpoints++
			if it.local {
				n.LocalHostEndpoints++
			}
		case v3.KindWorkloadEndpoint:
			n.WorkloadEndpoints++
			if it.local {
				n.LocalWorkloadEndpoints++
			}
		}
	}
	for _, p := range c.policies {
		if p.told != nil {
			n.ActivePolicies++
		}
	}
	for name, p := range c.profiles {
		if p.spec != nil && name != defaultAllow {
			n.Profiles++
		}
	}
	return n
}
