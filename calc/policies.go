package calc

import (
	"fmt"
	"reflect"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// A policy is a stored policy, enforced or staged, and the local endpoints that its selectors match.
type policy struct {
	id   ruleset.PolicyID
	tie  string         // orders policies of equal order as PolicyID.Compare does
	spec *v3.PolicySpec // nil: deleted, or staged in a way that means nothing
	// The fields that only a GlobalNetworkPolicy has.
	namespaceSelector                   string
	untracked, preDNAT, forward, global bool
	// deletes: staged, and would take away the enforced policy of its name. It selects nothing itself.
	deletes bool

	shadow    *policy // of an enforced policy: the one that is staged for it
	term      *term[*policy]
	faults    []string // of the selectors
	endpoints map[*endpoint]struct{}

	told     *ruleset.Policy
	compiled bool // told is of the present spec
	sets     []*set
	services []serviceKey // that rules name
	warnings []string
}

func (c *Calc) updateTier(name string, r v3.Resource) {
	delete(c.tiers, name)
	if r != nil {
		c.tiers[name] = &r.(*v3.Tier).Spec
	}
	for key := range c.locals {
		c.staleEndpoints[key] = struct{}{}
	}
}

func (c *Calc) updatePolicy(key v3.Key, r v3.Resource) {
	id := ruleset.PolicyID{Kind: string(key.Kind), Namespace: key.Namespace, Name: key.Name}
	p := c.policies[id]
	if p == nil {
		if r == nil {
			return
		}
		p = &policy{id: id, tie: id.Name + "/" + id.Namespace + "/" + id.Kind, endpoints: map[*endpoint]struct{}{}}
		c.policies[id] = p
	}
	p.read(r)
	p.compiled = false
	c.changedPolicies[p] = struct{}{}
	c.restage(p)
}

// read takes what the resource says; nil: it was deleted.
func (p *policy) read(r v3.Resource) {
	p.spec, p.deletes = nil, false
	switch r := r.(type) {
	case nil:
	case *v3.GlobalNetworkPolicy:
		p.readGlobal(&r.Spec)
	case *v3.NetworkPolicy:
		p.spec = &r.Spec
	case *v3.StagedGlobalNetworkPolicy:
		if p.stage(r.Spec.StagedAction) {
			p.readGlobal(&r.Spec.GlobalNetworkPolicySpec)
		}
	case *v3.StagedNetworkPolicy:
		if p.stage(r.Spec.StagedAction) {
			p.spec = &r.Spec.PolicySpec
		}
	case *v3.StagedKubernetesNetworkPolicy:
		if p.stage(r.Spec.StagedAction) {
			p.spec, _ = v3.FromKubernetes(&r.Spec)
		}
	default:
		panic(fmt.Sprintf("calc: %s came with a value of type %T", p.id, r))
	}
}

func (p *policy) readGlobal(spec *v3.GlobalNetworkPolicySpec) {
	p.spec, p.global = &spec.PolicySpec, true
	p.namespaceSelector = spec.NamespaceSelector
	p.untracked, p.preDNAT, p.forward = spec.DoNotTrack, spec.PreDNAT, spec.ApplyOnForward
}

// applies reports whether the policy decides in a direction. Old data without types means both.
func (p *policy) applies(d ruleset.Direction) bool {
	name := v3.TypeIngress
	if d == ruleset.Egress {
		name = v3.TypeEgress
	}
	return len(p.spec.Types) == 0 || slices.Contains(p.spec.Types, name)
}

// selects returns what the policy applies to: selector AND namespaceSelector AND serviceAccountSelector, and for a
// NetworkPolicy its own namespace. all() beside a namespaceSelector means what is in a namespace, and beside the
// serviceAccountSelector of a GlobalNetworkPolicy what has a service account.
//
// Of a selector that does not parse nothing is known: it counts as matching, and the fault makes the policy's Allow rules
// match nothing.
func (p *policy) selects() *selector.Selector {
	p.faults = nil
	parse := func(path, text string) []*selector.Selector {
		if text == "" {
			return nil
		}
		sel, err := selector.Parse(text)
		if err != nil {
			p.faults = append(p.faults, fmt.Sprintf("%s: %v; the policy applies to all that the other selectors match, its Allow rules match nothing", path, err))
			return nil
		}
		return []*selector.Selector{sel}
	}
	withAll := func(parts []*selector.Selector, label string) {
		for i, part := range parts {
			parts[i] = part.WithAll(selector.Has(label))
		}
	}
	parts := parse("spec.selector", p.spec.Selector)
	if !p.global {
		parts = append(parts, selector.Equal(labelNamespace, p.id.Namespace))
	}
	for _, sel := range parse("spec.namespaceSelector", p.namespaceSelector) {
		parts = append(parts, sel.WithPrefix(namespacePrefix))
		withAll(parts, labelNamespace)
	}
	for _, sel := range parse("spec.serviceAccountSelector", p.spec.ServiceAccountSelector) {
		parts = append(parts, sel.WithPrefix(serviceAccountPrefix))
		if p.global {
			withAll(parts, labelServiceAccount)
		}
	}
	if sel := selector.And(parts...); sel != nil {
		return sel
	}
	p.faults = append(p.faults, "metadata.namespace cannot be written in a selector; the policy applies everywhere, its Allow rules match nothing")
	return selector.All()
}

// matchChangedPolicies indexes the selectors of changed policies and asks them for every local endpoint.
func (c *Calc) matchChangedPolicies() {
	drain(c.changedPolicies, func(p *policy) {
		if p.term != nil {
			c.policyIndex.remove(p.term)
			p.term = nil
		}
		if p.spec != nil {
			p.term = &term[*policy]{sel: p.selects(), use: p}
			c.policyIndex.add(p.term)
		}
		for _, ep := range c.locals {
			_, before := p.endpoints[ep]
			now := p.term != nil && p.term.sel.Matches(&ep.item.labels)
			if !before && !now {
				continue
			}
			delete(p.endpoints, ep)
			delete(ep.policies, p)
			if now {
				p.endpoints[ep] = struct{}{}
				ep.policies[p] = struct{}{}
			}
			c.staleEndpoints[ep.item.key] = struct{}{}
		}
		c.markStale(p)
	})
}

// matchRelabelledEndpoints finds the policies of local endpoints whose labels changed.
func (c *Calc) matchRelabelledEndpoints() {
	drain(c.relabelled, func(ep *endpoint) {
		before := ep.policies
		ep.policies = make(map[*policy]struct{}, len(before))
		c.policyIndex.match(&ep.item.labels, func(p *policy) {
			ep.policies[p] = struct{}{}
			if _, had := before[p]; !had {
				p.endpoints[ep] = struct{}{}
				c.markStale(p)
			}
		})
		for p := range before {
			if _, has := ep.policies[p]; !has {
				delete(p.endpoints, ep)
				c.markStale(p)
			}
		}
		c.staleEndpoints[ep.item.key] = struct{}{}
	})
}

// flushPolicies tells the policies that apply to a local endpoint.
func (c *Calc) flushPolicies(d *ruleset.Delta) {
	drain(c.stalePolicies, func(p *policy) {
		active := c.active(p)
		if active && p.compiled {
			return
		}
		var compiled *ruleset.Policy
		var specs []setSpec
		p.warnings, p.services = nil, nil
		if active {
			compiled, specs = c.compile(p)
		}
		p.compiled = active
		p.sets = c.exchangeSets(p.sets, specs)
		if !reflect.DeepEqual(compiled, p.told) {
			d.Policies[p.id], p.told = compiled, compiled
		}
		if !p.live() {
			delete(c.policies, p.id)
		}
	})
}

// active reports whether some local endpoint walks the policy.
func (c *Calc) active(p *policy) bool {
	if p.deletes {
		p = c.policies[enforcedID(p.id)]
	}
	if p == nil || p.spec == nil {
		return false
	}
	for ep := range p.endpoints {
		if p.walkedBy(ep) {
			return true
		}
	}
	return false
}

// compile returns the rules of the directions that the policy decides, and the sets that they use.
func (c *Calc) compile(p *policy) (*ruleset.Policy, []setSpec) {
	if p.deletes {
		return &ruleset.Policy{ID: p.id, Staged: true, Deletes: true}, nil
	}
	k := compiler{namespace: p.id.Namespace, blind: len(p.faults) > 0, parsed: c.parsed}
	compiled := &ruleset.Policy{ID: p.id, Staged: isStaged(p.id), Superseded: p.shadow != nil}
	if p.applies(ruleset.Ingress) {
		compiled.Ingress = k.rules("spec.ingress", p.spec.Ingress, ruleset.Ingress)
	}
	if p.applies(ruleset.Egress) {
		compiled.Egress = k.rules("spec.egress", p.spec.Egress, ruleset.Egress)
	}
	p.warnings, p.services = k.warnings, k.services
	return compiled, k.specs
}
