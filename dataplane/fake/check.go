package fake

import (
	"fmt"

	"margay/ruleset"
)

// checkSets reports the first change of a set that does not fit what the program holds.
func checkSets(p *ruleset.Program, delta *ruleset.Delta) error {
	for id, change := range delta.Sets {
		set := p.Sets[id]
		switch {
		case change == nil && set == nil:
			return fmt.Errorf("remove set %s: there is none", id)
		case change == nil:
		case change.New != nil && (set != nil || len(change.Add)+len(change.Remove) > 0):
			return fmt.Errorf("add set %s: it exists or has changes beside its content", id)
		case change.New == nil && set == nil:
			return fmt.Errorf("change set %s: there is none", id)
		case change.New == nil:
			if err := checkMembers(set.Clone(), change); err != nil {
				return fmt.Errorf("change set %s: %w", id, err)
			}
		}
	}
	return nil
}

func checkMembers(set *ruleset.Set, change *ruleset.SetDelta) error {
	for _, m := range change.Remove {
		if !set.Remove(m) {
			return fmt.Errorf("remove member %v: there is none", m)
		}
	}
	for _, m := range change.Add {
		if !set.Add(m) {
			return fmt.Errorf("add member %v: it is there", m)
		}
	}
	return nil
}

// check reports the first object that names another one that the program does not hold, interfaces that two endpoints
// claim, host endpoints on interfaces of workloads, and policies in stages that they cannot be in.
func check(p *ruleset.Program) error {
	if err := checkInterfaces(p); err != nil {
		return err
	}
	for id, ep := range p.Endpoints {
		for _, stage := range []ruleset.Stage{ruleset.Normal, ruleset.Forward, ruleset.PreDNAT, ruleset.Untracked} {
			if err := checkWalk(p, ep.Walk(stage)); err != nil {
				return fmt.Errorf("endpoint %s: %s: %w", id, stage, err)
			}
		}
		if len(ep.PreDNAT.Egress) > 0 {
			return fmt.Errorf("endpoint %s: there is no egress before DNAT", id)
		}
	}
	for id, w := range p.Workloads {
		if err := checkWalk(p, &w.Normal); err != nil {
			return fmt.Errorf("workload %s: %w", id, err)
		}
	}
	for id, policy := range p.Policies {
		if err := checkRules(p, policy.Ingress, policy.Egress); err != nil {
			return fmt.Errorf("policy %s: %w", id, err)
		}
	}
	for name, profile := range p.Profiles {
		if err := checkRules(p, profile.Ingress, profile.Egress); err != nil {
			return fmt.Errorf("profile %s: %w", name, err)
		}
	}
	return nil
}

func checkInterfaces(p *ruleset.Program) error {
	owner := map[string]ruleset.EndpointID{}
	claim := func(name string, id ruleset.EndpointID) error {
		if other, taken := owner[name]; taken {
			return fmt.Errorf("interface %s belongs to %s and %s", name, id, other)
		}
		owner[name] = id
		return nil
	}
	for id, ep := range p.Endpoints {
		for _, name := range ep.Interfaces {
			if p.Settings.IsWorkload(name) { // one that a workload names is claimed by both, see below
				return fmt.Errorf("interface %s of %s is a workload's by its name", name, id)
			}
			if err := claim(name, id); err != nil {
				return err
			}
		}
	}
	for id, w := range p.Workloads {
		if w.Interface == "" {
			continue
		}
		if w.Interface == ruleset.AllInterfaces {
			return fmt.Errorf("%s claims all interfaces", id)
		}
		if err := claim(w.Interface, id); err != nil {
			return err
		}
	}
	return nil
}

func checkWalk(p *ruleset.Program, w *ruleset.Walk) error {
	if err := checkTiers(p, w.Ingress); err != nil {
		return err
	}
	return checkTiers(p, w.Egress)
}

func checkTiers(p *ruleset.Program, tiers []ruleset.Tier) error {
	for _, tier := range tiers {
		if len(tier.Policies) == 0 {
			return fmt.Errorf("tier %s has no policy", tier.Name)
		}
		for _, id := range tier.Policies {
			if p.Policies[id] == nil {
				return fmt.Errorf("tier %s: policy %s does not exist", tier.Name, id)
			}
		}
	}
	return nil
}

func checkRules(p *ruleset.Program, lists ...[]ruleset.Rule) error {
	for _, rules := range lists {
		for i := range rules {
			for _, e := range []*ruleset.Entity{&rules[i].Source, &rules[i].Destination} {
				if err := checkEntity(p, e); err != nil {
					return fmt.Errorf("rule %d: %w", i, err)
				}
			}
		}
	}
	return nil
}

func checkEntity(p *ruleset.Program, e *ruleset.Entity) error {
	for _, ids := range [][]ruleset.SetID{e.Sets, e.NotSets} {
		if err := checkIDs(p, ruleset.Addrs, ids); err != nil {
			return err
		}
	}
	for _, ports := range []*ruleset.Ports{e.Ports, e.NotPorts} {
		if ports == nil {
			continue
		}
		if err := checkIDs(p, ruleset.AddrPorts, ports.Named); err != nil {
			return err
		}
	}
	return nil
}

func checkIDs(p *ruleset.Program, kind ruleset.SetKind, ids []ruleset.SetID) error {
	for _, id := range ids {
		if set := p.Sets[id]; set == nil || set.Kind != kind {
			return fmt.Errorf("set %s of kind %d does not exist", id, kind)
		}
	}
	return nil
}
