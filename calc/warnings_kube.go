package calc

import (
	"fmt"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// unisolated warns of policies that allow what a NetworkPolicy of Kubernetes before them in the tier does not. That a pod is
// isolated, as Kubernetes has it, is the end of the tier only: what no rule matches goes on to the next policy.
func (c *Calc) unisolated(warn func(v3.Key, ...string)) {
	type place struct {
		policy    ruleset.PolicyID
		direction ruleset.Direction
	}
	isolating := map[place][]string{}
	for _, ep := range c.locals {
		if ep.workload == nil || !ep.hasKubernetes() {
			continue
		}
		walk := c.walkOf(ep)
		for _, d := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
			for _, tier := range walk.Tiers(d) {
				first := ""
				for _, id := range tier.Policies {
					switch at := (place{id, d}); {
					case isStaged(id):
					case ofKubernetes(id):
						first = id.String()
					case first != "" && c.allows(id, d):
						isolating[at] = append(isolating[at], first)
					}
				}
			}
		}
	}
	for at, names := range isolating {
		warn(keyOf(at.policy), fmt.Sprintf("spec.%s: what %s of Kubernetes does not allow goes on to the next policy of the tier, so that the Allow rules here let it pass (leave those pods out of spec.selector if they are to be isolated)", at.direction, someOf(names)))
	}
}

// hasKubernetes reports whether a policy of Kubernetes selects the endpoint: asking is cheaper than putting policies in order.
func (ep *endpoint) hasKubernetes() bool {
	for p := range ep.policies {
		if ofKubernetes(p.id) {
			return true
		}
	}
	return false
}

// ofKubernetes reports whether a policy was made from a NetworkPolicy of Kubernetes.
func ofKubernetes(id ruleset.PolicyID) bool {
	return id.Kind == string(v3.KindNetworkPolicy) && strings.HasPrefix(id.Name, v3.PrefixKubernetesPolicy)
}

// allows reports whether a policy has an Allow rule in a direction.
func (c *Calc) allows(id ruleset.PolicyID, d ruleset.Direction) bool {
	p := c.policies[id].told
	if p == nil {
		return false
	}
	for _, r := range p.Rules(d) {
		if r.Action == ruleset.Allow {
			return true
		}
	}
	return false
}
