package calc

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// unisolated warns of policies that allow what a NetworkPolicy of Kubernetes before them in the tier does not. That a pod is
// isolated, as Kubernetes has it, is the end of the tier only: what no rule matches goes on to the next policy.
func (c *Calc) unisolated(warn func(v3.Key, ...string)) {
	found := leaks{}
	for id, before := range c.policies {
		if !ofKubernetes(id) {
			continue
		}
		beside := map[*policy]struct{}{}
		for ep := range before.endpoints {
			if ep.workload != nil {
				maps.Copy(beside, ep.policies)
			}
		}
		for p := range beside {
			found.add(before, p, func(ruleset.Direction) bool { return true })
		}
	}
	found.warn(warn)
}

// leaks are policies with Allow rules in a direction, and the policies of Kubernetes that these undo for some workload.
type leaks map[leak]map[ruleset.PolicyID]bool

type leak struct {
	policy    ruleset.PolicyID
	direction ruleset.Direction
}

// add takes note of the directions in which p undoes a policy of Kubernetes, if some workload is selected by both.
func (l leaks) add(before, p *policy, some func(ruleset.Direction) bool) {
	for _, d := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
		at := leak{p.id, d}
		if !p.undoes(before, d) || !some(d) {
			continue
		}
		if l[at] == nil {
			l[at] = map[ruleset.PolicyID]bool{}
		}
		l[at][before.id] = true
	}
}

func (l leaks) warn(warn func(v3.Key, ...string)) {
	for at, undone := range l {
		var names []string
		for id := range undone {
			names = append(names, id.String())
		}
		warn(keyOf(at.policy), fmt.Sprintf("spec.%s: what %s of Kubernetes does not allow goes on to the next policy of the tier, so that the Allow rules here let it pass (leave those pods out of spec.selector if they are to be isolated)", at.direction, someOf(names)))
	}
}

// undoes reports whether what a policy of Kubernetes does not allow comes to Allow rules of p, for a workload that both select.
func (p *policy) undoes(before *policy, d ruleset.Direction) bool {
	return (p.global || p.id.Namespace == before.id.Namespace) && !ofKubernetes(p.id) && !isStaged(p.id) &&
		p.in(ruleset.Normal) && p.tier() == before.tier() && comparePolicies(before, p) < 0 &&
		before.applies(d) && p.allows(d)
}

// ofKubernetes reports whether a policy was made from a NetworkPolicy of Kubernetes.
func ofKubernetes(id ruleset.PolicyID) bool {
	return id.Kind == string(v3.KindNetworkPolicy) && strings.HasPrefix(id.Name, v3.PrefixKubernetesPolicy)
}

// allows reports whether the policy, which was compiled, has an Allow rule in a direction.
func (p *policy) allows(d ruleset.Direction) bool {
	return p.told != nil && slices.ContainsFunc(p.told.Rules(d), func(r ruleset.Rule) bool { return r.Action == ruleset.Allow })
}
