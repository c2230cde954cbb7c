package calc

import (
	"maps"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// An Isolation tells, before agents see it, of which policies they would warn because those undo a policy of Kubernetes: for the
// workloads of all nodes, and only as far as a change brings it about.
type Isolation struct {
	was, is *Calc
	changed map[v3.Key]bool
	// relabelled: a profile changed, so that any workload may have other labels.
	relabelled bool
}

// NewIsolation returns an Isolation that knows of nothing.
func NewIsolation() *Isolation {
	return &Isolation{was: New(""), is: New(""), changed: map[v3.Key]bool{}}
}

// Update takes note of an enforced policy, a profile or a workload, as it was before the change and as it is after it; nil: there
// is none. Of what did not change both are the same object. Neither must be changed afterwards.
func (i *Isolation) Update(key v3.Key, was, is v3.Resource) {
	if was != nil {
		i.was.Update(key, was)
	}
	if is != nil {
		i.is.Update(key, is)
	}
	if was != is {
		i.changed[key] = true
		i.relabelled = i.relabelled || key.Kind == v3.KindProfile
	}
}

// Namespaces returns, in order, those whose workloads must be known for Warnings, besides the workloads that changed.
func (i *Isolation) Namespaces() []string {
	names := map[string]bool{}
	i.pairs(func(before, p *policy) {
		if i.concerns(before, p) && (p.undoes(before, ruleset.Ingress) || p.undoes(before, ruleset.Egress)) {
			names[before.id.Namespace] = true
		}
	})
	return slices.Sorted(maps.Keys(names))
}

// Warnings returns, in the order of Calc.Warnings, what the change gives reason to warn of.
func (i *Isolation) Warnings() []Warning {
	workloads, selected := i.workloads(), map[*policy][]*item{}
	found := leaks{}
	i.pairs(func(before, p *policy) {
		concerned := i.concerns(before, p)
		found.add(before, p, func(d ruleset.Direction) bool {
			if _, done := selected[before]; !done {
				selected[before] = before.selected(workloads[before.id.Namespace])
			}
			return slices.ContainsFunc(selected[before], func(it *item) bool {
				return (concerned || i.changed[it.key]) && p.term.sel.Matches(&it.labels) && !i.undone(leak{p.id, d}, before.id, it.key)
			})
		})
	})
	var list []Warning
	found.warn(func(key v3.Key, texts ...string) {
		for _, text := range texts {
			list = append(list, Warning{key, text})
		}
	})
	slices.SortFunc(list, compareWarnings)
	return list
}

// pairs calls f with each policy of Kubernetes and each other one.
func (i *Isolation) pairs(f func(before, p *policy)) {
	var kubernetes, others []*policy
	for id, p := range i.is.policies {
		switch {
		case ofKubernetes(id):
			kubernetes = append(kubernetes, p)
		case !isStaged(id):
			others = append(others, p)
		}
	}
	if len(kubernetes) == 0 {
		return // what follows costs something
	}
	for _, p := range slices.Concat(kubernetes, others) {
		i.is.understand(p)
	}
	for _, before := range kubernetes {
		for _, p := range others {
			f(before, p)
		}
	}
}

// understand does with a policy what Flush does where it selects something.
func (c *Calc) understand(p *policy) {
	if p.term == nil {
		p.term = &term[*policy]{sel: p.selects(), use: p}
		p.told, _ = c.compile(p)
	}
}

// concerns reports whether the change can bring a workload under both policies that did not change itself.
func (i *Isolation) concerns(before, p *policy) bool {
	return i.relabelled || i.changed[keyOf(before.id)] || i.changed[keyOf(p.id)]
}

func (i *Isolation) workloads() map[string][]*item {
	out := map[string][]*item{}
	for key, it := range i.is.items {
		if key.Kind == v3.KindWorkloadEndpoint {
			out[key.Namespace] = append(out[key.Namespace], it)
		}
	}
	return out
}

// selected returns the items that the policy selects.
func (p *policy) selected(items []*item) []*item {
	var out []*item
	for _, it := range items {
		if p.term.sel.Matches(&it.labels) {
			out = append(out, it)
		}
	}
	return out
}

// undone reports whether the same was so before the change.
func (i *Isolation) undone(at leak, before ruleset.PolicyID, workload v3.Key) bool {
	k, p, it := i.was.policies[before], i.was.policies[at.policy], i.was.items[workload]
	if k == nil || p == nil || it == nil {
		return false
	}
	i.was.understand(k)
	i.was.understand(p)
	return p.undoes(k, at.direction) && k.term.sel.Matches(&it.labels) && p.term.sel.Matches(&it.labels)
}
