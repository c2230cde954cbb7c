package calc

import (
	"cmp"
	"fmt"
	"slices"

	v3 "margay/api/v3"
)

// A Warning says of a resource that something about it is in force otherwise than its author may expect.
type Warning struct {
	Key  v3.Key
	Text string
}

// Warnings returns what there is to warn of as of the last Flush, ordered by kind, namespace, name and text.
func (c *Calc) Warnings() []Warning {
	var list []Warning
	warn := func(key v3.Key, texts ...string) {
		for _, text := range texts {
			list = append(list, Warning{key, text})
		}
	}
	for key, it := range c.items {
		warn(key, it.warnings...)
	}
	for _, p := range c.policies {
		if len(p.endpoints) > 0 {
			warn(v3.Key{Kind: v3.Kind(p.id.Kind), Namespace: p.id.Namespace, Name: p.id.Name}, c.policyWarnings(p)...)
		}
	}
	for _, p := range c.profiles {
		warn(v3.Key{Kind: v3.KindProfile, Name: p.name}, p.warnings...)
	}
	for _, ep := range c.locals {
		key := v3.Key{Kind: v3.KindHostEndpoint, Name: ep.id.Name}
		warn(key, ep.conflicts...)
		for _, p := range ep.profiles {
			if p.spec == nil {
				warn(key, fmt.Sprintf("profile %s does not exist: what reaches it is denied", p.name))
			}
		}
	}
	slices.SortFunc(list, func(a, b Warning) int {
		return cmp.Or(cmp.Compare(a.Key.Kind, b.Key.Kind), cmp.Compare(a.Key.Namespace, b.Key.Namespace),
			cmp.Compare(a.Key.Name, b.Key.Name), cmp.Compare(a.Text, b.Text))
	})
	return slices.Compact(list)
}

// policyWarnings returns the warnings of a policy that applies to a local host endpoint.
func (c *Calc) policyWarnings(p *policy) []string {
	list := slices.Concat(p.faults, p.warnings)
	switch {
	case p.untracked:
		list = append(list, "doNotTrack: this stage is not enforced yet; the policy has no effect")
	case p.preDNAT:
		list = append(list, "preDNAT: this stage is not enforced yet; the policy has no effect")
	case p.forward:
		list = append(list, "applyOnForward: forwarded traffic is not filtered yet; the policy holds for traffic of the host itself")
	}
	if p.normal() && c.tiers[p.tier()] == nil {
		list = append(list, fmt.Sprintf("tier %s does not exist: the policy is walked after all tiers, which then deny", p.tier()))
	}
	if p.namespaceSelector != "" {
		list = append(list, "spec.namespaceSelector matches host endpoints, which have no namespace and so none of its labels (add && has(projectcalico.org/namespace) to spec.selector to leave them out)")
	}
	return list
}

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
		LocalHostEndpoints: len(c.locals), ActiveSelectors: len(c.sets), Hosts: len(c.hosts), Policies: len(c.policies),
		Tiers: len(c.tiers), LabelledObjects: len(c.items), UnoptimizedSelectors: len(c.setIndex.rest),
		OptimizedSelectors: c.setIndex.size - len(c.setIndex.rest),
	}
	for key, it := range c.items {
		switch key.Kind {
		case v3.KindHostEndpoint:
			n.HostEndpoints++
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
