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
	kubernetes, others := i.policies()
	for _, before := range kubernetes {
		if slices.ContainsFunc(others, func(p party) bool {
			if !before.changed && !p.changed {
				return false
			}
			i.is.understand(p.policy)
			return p.undoes(before.policy, ruleset.Ingress) || p.undoes(before.policy, ruleset.Egress)
		}) {
			names[before.id.Namespace] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Warnings returns, in the order of Calc.Warnings, what the change gives reason to warn of.
func (i *Isolation) Warnings() []Warning {
	kubernetes, others := i.policies()
	workloads, selected := i.selected(kubernetes)
	selects := make([]answer, len(workloads)) // of one policy: those of Kubernetes often select the same workloads
	found := leaks{}
	for _, p := range others {
		clear(selects)
		for n, before := range kubernetes {
			under := selected[n].changed
			if before.changed || p.changed {
				under = selected[n].all
			}
			if len(under) == 0 {
				continue
			}
			i.is.understand(p.policy)
			found.add(before.policy, p.policy, func(d ruleset.Direction) bool {
				return slices.ContainsFunc(under, func(w int) bool {
					if selects[w] == unasked {
						selects[w] = no
						if p.term.sel.Matches(&workloads[w].labels) {
							selects[w] = yes
						}
					}
					return selects[w] == yes && !i.undone(leak{p.id, d}, before.id, workloads[w].key)
				})
			})
		}
	}
	var list []Warning
	found.warn(func(key v3.Key, texts ...string) {
		for _, text := range texts {
			list = append(list, Warning{key, text})
		}
	})
	slices.SortFunc(list, compareWarnings)
	return list
}

// A party is an enforced policy. It changed also when workloads may have come under it by labels of profiles.
type party struct {
	*policy
	changed bool
}

// policies returns those of Kubernetes, which are understood, and all others.
func (i *Isolation) policies() (kubernetes, others []party) {
	for id, p := range i.is.policies {
		switch p := (party{p, i.relabelled || i.changed[keyOf(id)]}); {
		case ofKubernetes(id):
			kubernetes = append(kubernetes, p)
		case !isStaged(id):
			others = append(others, p)
		}
	}
	for _, p := range kubernetes {
		i.is.understand(p.policy)
	}
	return kubernetes, others
}

// understand does with a policy what Flush does where it selects something.
func (c *Calc) understand(p *policy) {
	if p.term == nil {
		p.term = &term[*policy]{sel: p.selects(), use: p}
		p.told, _ = c.compile(p)
	}
}

// An answer says whether a policy selects a workload.
type answer uint8

const (
	unasked answer = iota
	yes
	no
)

// selected are the workloads that a policy selects, and those of them that changed, by their places in a list.
type selected struct{ all, changed []int }

// selected returns all workloads, and what of them each policy selects.
func (i *Isolation) selected(policies []party) ([]*item, []selected) {
	var workloads []*item
	places := map[string][]int{} // by namespace
	for key, it := range i.is.items {
		if key.Kind == v3.KindWorkloadEndpoint {
			places[key.Namespace] = append(places[key.Namespace], len(workloads))
			workloads = append(workloads, it)
		}
	}
	out := make([]selected, len(policies))
	for n, p := range policies {
		for _, w := range places[p.id.Namespace] {
			if !p.term.sel.Matches(&workloads[w].labels) {
				continue
			}
			out[n].all = append(out[n].all, w)
			if i.changed[workloads[w].key] {
				out[n].changed = append(out[n].changed, w)
			}
		}
	}
	return workloads, out
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
