package ruleset

import "slices"

// Preview returns the Program that would be in force if all staged policies were: each stands where it is listed, in place
// of the enforced policy of its name or takes that away. It shares everything with p that is the same. What
// changes for a packet is what [Eval] says of the two Programs.
func Preview(p *Program) *Program {
	q := *p
	q.Policies = make(map[PolicyID]*Policy, len(p.Policies))
	for id, policy := range p.Policies {
		switch {
		case policy.Superseded || policy.Staged && policy.Deletes:
		case policy.Staged:
			enforced := *policy
			enforced.Staged = false
			q.Policies[id] = &enforced
		default:
			q.Policies[id] = policy
		}
	}
	q.Endpoints = make(map[EndpointID]*Endpoint, len(p.Endpoints))
	for id, ep := range p.Endpoints {
		now := *ep
		for _, s := range []Stage{Normal, Forward, PreDNAT, Untracked} {
			*now.Walk(s) = q.existing(*now.Walk(s))
		}
		q.Endpoints[id] = &now
	}
	q.Workloads = make(map[EndpointID]*Workload, len(p.Workloads))
	for id, w := range p.Workloads {
		now := *w
		now.Normal = q.existing(w.Normal)
		q.Workloads[id] = &now
	}
	return &q
}

// existing returns w without the policies that p does not hold and the tiers that are empty without them.
func (p *Program) existing(w Walk) Walk {
	list := func(tiers []Tier) []Tier {
		var kept []Tier
		for _, tier := range tiers {
			tier.Policies = slices.DeleteFunc(slices.Clone(tier.Policies), func(id PolicyID) bool { return p.Policies[id] == nil })
			if len(tier.Policies) > 0 {
				kept = append(kept, tier)
			}
		}
		return kept
	}
	return Walk{Ingress: list(w.Ingress), Egress: list(w.Egress)}
}
