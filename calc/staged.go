package calc

import (
	"margay/ruleset"

	v3 "margay/api/v3"
)

// Staged policies are told like others and listed in their tiers, where they decide nothing. The enforced policy of the
// same name knows its staged one, its shadow: it is told to be superseded, and a shadow that deletes it is listed right
// before it, wherever it is listed.

// stagedKinds pairs kinds of enforced policies with those of the policies that are staged for them.
var stagedKinds = [...][2]string{
	{string(v3.KindGlobalNetworkPolicy), string(v3.KindStagedGlobalNetworkPolicy)},
	{string(v3.KindNetworkPolicy), string(v3.KindStagedNetworkPolicy)},
	{kindKubernetesNetworkPolicy, string(v3.KindStagedKubernetesNetworkPolicy)},
}

// kindKubernetesNetworkPolicy is the kind of a NetworkPolicy of Kubernetes among policies.
const kindKubernetesNetworkPolicy = "KubernetesNetworkPolicy"

func isStaged(id ruleset.PolicyID) bool { return enforcedID(id) != id }

// enforcedID returns the name of the policy that a staged one is for, and that of any other policy unchanged.
func enforcedID(id ruleset.PolicyID) ruleset.PolicyID {
	for _, pair := range stagedKinds {
		if id.Kind == pair[1] {
			id.Kind = pair[0]
			break
		}
	}
	return id
}

func stagedID(id ruleset.PolicyID) ruleset.PolicyID {
	for _, pair := range stagedKinds {
		if id.Kind == pair[0] {
			id.Kind = pair[1]
			break
		}
	}
	return id
}

// stage takes the action of a staged policy and reports whether its spec counts. Learn and Ignore mean nothing.
func (p *policy) stage(action string) bool {
	p.deletes = action == v3.StagedDelete
	return action == v3.StagedSet || action == ""
}

// live reports whether the resource is there and means something.
func (p *policy) live() bool { return p.spec != nil || p.deletes }

// restage follows a change of a policy, enforced or staged, to its counterpart.
func (c *Calc) restage(p *policy) {
	enforced, staged := p, c.policies[stagedID(p.id)]
	if isStaged(p.id) {
		enforced, staged = c.policies[enforcedID(p.id)], p
	}
	if enforced == nil {
		return
	}
	if staged != nil && !staged.live() {
		staged = nil
	}
	before := enforced.shadow
	enforced.shadow = staged
	if staged == nil && before == nil {
		return
	}
	enforced.compiled = false
	c.markStale(enforced)
	for ep := range enforced.endpoints {
		c.staleEndpoints[ep.item.key] = struct{}{}
	}
}

// markStale has a policy looked at again, whose resource or endpoints changed, and its shadow with it.
func (c *Calc) markStale(p *policy) {
	c.stalePolicies[p] = struct{}{}
	if p.shadow != nil {
		c.stalePolicies[p.shadow] = struct{}{}
	}
}
